"""The commands that are no stages: one module, and in it one `command`, for each."""
