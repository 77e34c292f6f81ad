"""The `mac` command: `cli` lists the commands, `frame` makes the stages' commands, `tools` has the others."""
