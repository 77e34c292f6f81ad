"""The one exception for what a user can mend: bad parameters, bad input, artefacts that do not fit."""

import os


class MacError(Exception):
    """A user's mistake, or broken input. `str(error)` is one line: where, what was found, and what to do.

    A message may quote a file, which may hold anything. So line breaks and terminal codes are shown escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the exception's name where it has none.

    Of an operating system's error it is the reason alone.
    """
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]
