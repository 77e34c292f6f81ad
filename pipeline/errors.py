"""The exception for all that a user can correct: bad parameters, bad input, artefacts that do not fit."""

import os


class MacError(Exception):
    """A user's mistake, or broken input. `str(error)` is one line: where, what was found, and what to do.

    A message may quote a file, and a file may hold anything. So line breaks and terminal codes are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the name of the exception if it has no message.

    For an error of the operating system, it is the reason only, without the file.
    """
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]
