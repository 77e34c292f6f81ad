"""Classes and attributes are text: which texts are one name, and which say that a value is missing."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from pipeline.errors import MacError
from pipeline.splits import sort_names

# What people and programs write for a value that is not there, without brackets and the like around it.
MISSING = re.compile(
    r"n/?a|n\.a\.?|n/k|-?nan|none|null!?|nil|unk|unknown|undefined|missing|unspecified|value!"
    r"|not (available|applicable|known|specified)"
)
NO_WORD = "?-–—._…/\\ "  # a text of these alone is no value either
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
NUMBER = re.compile(r"[+-]?0+(?:[.,]0{1,2})?|\+?(-?)0*(\d+)(?:[.,]0{1,2})?")
ALPHABET = 10  # more names of one character are letters, of which large and small ones are two
SHOWN = 8  # most names in one message


def normal(text: str, are_letters: bool = False) -> str:
    """What two spellings of one name have in common.

    Unicode forms (NFKC), upper and lower case, blanks and invisible characters make no difference. Nor do the
    ways in which programs write an integer: 1, 1.0, 1.00 and 01 are one. (3.1 and 3.10 may be versions.)

    Args:
        are_letters: upper and lower case do make a difference.
    """
    folded = unicodedata.normalize("NFKC", text)
    folded = folded if are_letters else unicodedata.normalize("NFKC", folded.casefold())
    folded = " ".join(INVISIBLE.sub("", folded).split())
    number = NUMBER.fullmatch(folded)
    return f"{number[1] or ''}{number[2] or '0'}" if number else folded


def is_missing(text: str) -> bool:
    """Whether the text stands for a value that is not there: empty, NA, nan, None, ?, unknown, ..."""
    word = normal(text)
    return not word.strip(NO_WORD) or bool(MISSING.fullmatch(word.strip("()[]<>{}\"'# ")))


def distinct(names: Sequence[str], what: str, where: str) -> tuple[str, ...]:
    """The distinct names, as `sort_names` sorts them. `A` and `a` are two where the names are letters.

    Args:
        names: one for each image.
        what: what they name, in the plural, such as `classes`.
        where: starts the message.

    Raises:
        MacError: some names are spellings of one.
    """
    count = Counter(names)
    are_letters = len(count) > ALPHABET and all(len(name) == 1 for name in count)
    spellings: dict[str, list[str]] = {}
    for name in sorted(count):
        spellings.setdefault(normal(name, are_letters), []).append(name)
    several = [" = ".join(counted(same, count)) for same in spellings.values() if len(same) > 1]
    if several:
        raise MacError(
            f"{where}: {what} differ in their spelling alone: {'; '.join(shortened(several))}; "
            "give each one spelling"
        )
    return sort_names(names)


def counted(names: Sequence[str], count: Counter[str]) -> list[str]:
    """Each name in quotes, with how often it occurs. What cannot be told apart by eye is escaped."""
    return [f"{ascii(name) if name else 'empty'} ({count[name]})" for name in names]


def shortened(texts: Sequence[str]) -> list[str]:
    """The first texts, and how many more there are."""
    more = len(texts) - SHOWN
    return [*texts[:SHOWN], *([f"{more} more"] if more > 0 else [])]
