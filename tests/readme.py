"""The README, for the tests that run its commands as they are written there."""

import re

from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [block for language, block in re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) if not language]


def commands(having: str) -> str:
    """The block of commands that has this text."""
    (block,) = [block for block in COMMANDS if having in block]
    return block


def python() -> str:
    """The program in Python."""
    (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return block
