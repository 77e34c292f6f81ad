"""`python -m stages` is `mac`."""

from stages.cli import main

main()
