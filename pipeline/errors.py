"""The exception for all that a user can correct: bad parameters, bad input, artefacts that do not fit."""

import os
import reprlib

LONGEST = 1000  # most characters of a message
_IN_WORDS = "\u00a0\u3000\u200c\u200d"  # spaces, and the joiners that some scripts need


class MacError(Exception):
    """A user's mistake, or broken input. `str(error)` is one line: where, what was found, and what to do.

    A message may quote a file, and a file may hold anything. So line breaks and terminal codes are escaped,
    and of a very long message only the beginning and the end are kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_shortened(printable(_shortened(message, LONGEST)), LONGEST))


def printable(text: str, kept: str = "") -> str:
    """A text in which what is no visible character is escaped.

    That is: terminal codes, line breaks, marks that turn the direction of writing, and bytes that are not
    UTF-8 in the name of a file.

    Args:
        kept: characters that stay as they are.
    """
    if text.isprintable():
        return text
    kept += _IN_WORDS
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def quoted(value: object) -> str:
    """A value of a file for a message. However large and nested the value is, this is short and quick."""
    return _shortened(_REPR.repr(value), 200)


class _Short(reprlib.Repr):
    """`reprlib.Repr`, except that Python may refuse to write a large integer."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 200 else "an integer of more than 60 digits"


_REPR = _Short()


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 3]} … {text[-longest // 4 :]}"


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the name of the exception if it has no message.

    For an error of the operating system, it is the reason only, without the file.
    """
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
