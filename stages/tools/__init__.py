"""The commands that are not stages: for each one module with one `command`."""
