"""The one exception for what a user can mend: bad parameters, bad input, a missing or foreign artefact."""

import os


class MacError(Exception):
    """A user's mistake or broken input. `str(error)` is one line: where, what was found, what to do.

    What comes from a file's contents may hold anything; line breaks and terminal codes are shown escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the exception's name where it has none; of an operating system's error its reason."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]
