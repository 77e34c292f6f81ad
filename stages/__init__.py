"""The `mac` command: `cli` lists the commands, `frame` makes those of the stages, `tools` has the others."""
