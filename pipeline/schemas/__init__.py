"""What is in each HDF5 artefact: for each kind one module with one `SCHEMA`."""
