"""The command `mac`: thin over `pipeline`. `mac --help` lists what it can do."""

LOCK = "mac.lock"  # which code makes what, in a project that `mac new` made
