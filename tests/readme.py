"""The README and the pages in docs/, for the tests that run their commands as they are written there."""

import re

from tests.conftest import REPOSITORY

PAGES = (
    "README.md",
    *sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").glob("*.md")),
)
TEXT = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES)
_BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
# A block may stand on several pages, letter by letter.
COMMANDS = list(dict.fromkeys(block for language, block in _BLOCKS if not language))


def commands(having: str) -> str:
    """The block of commands that has this text."""
    (block,) = [block for block in COMMANDS if having in block]
    return block


def python(having: str) -> str:
    """The program in Python that has this text."""
    (block,) = [block for language, block in _BLOCKS if language == "python" and having in block]
    return block
