"""The one exception for what a user can mend: bad parameters, bad input, a missing or foreign artefact."""


class MacError(Exception):
    """A user's mistake or broken input. `str(error)` is one line: where, what was found, what to do."""
