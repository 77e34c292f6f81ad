"""What is in each HDF5 artefact: one module, and in it one `SCHEMA`, for each kind."""
