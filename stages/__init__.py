"""The `mac` command: `cli` lists the commands, `frame` makes the stages' commands, `tools` has the others."""

LOCK = "mac.lock"  # which code makes what, in a project that `mac new` made
