"""What this process may use of the machine."""

import os


def usable_cores() -> int:
    """How many cores this process may run on.

    In containers and batch systems, these can be fewer than the cores of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
