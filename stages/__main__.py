"""`python -m stages` is the same as `mac`."""

from stages.cli import main

main()
