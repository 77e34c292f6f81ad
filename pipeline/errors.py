"""The one exception for what a user can mend: bad parameters, bad input, a missing or foreign artefact."""


class MacError(Exception):
    """A user's mistake or broken input. `str(error)` is one line: where, what was found, what to do."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the exception's name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
