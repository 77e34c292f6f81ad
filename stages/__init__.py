"""The `mac` command: `cli` lists the commands, `frame` makes the stages' commands, `tools` has the others."""

LOCK = "mac.lock"  # which code makes what, in a project that `mac new` made
PAINTED = "data/raw/demo"  # the dataset that `mac demo` paints for a project
