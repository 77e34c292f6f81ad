"""What torchrun tells the processes that it starts, in variables of their environment."""

import os


def started() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def count() -> int:
    """How many processes it started, on all machines; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if started() else 1


def rank() -> int:
    """The number of this process among all of them, from 0."""
    return int(os.environ["RANK"]) if started() else 0


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if started() else 0


def restarted() -> bool:
    """Whether torchrun started it again, in place of one that had ended."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
