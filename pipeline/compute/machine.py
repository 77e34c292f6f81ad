"""What this process has of the machine."""

import os


def usable_cores() -> int:
    """Cores that this process may run on: fewer than there are, where it is bound to some (containers, batch systems)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
