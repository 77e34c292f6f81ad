"""What this process may use of the machine."""

import ctypes
import os


def usable_cores() -> int:
    """How many cores this process may run on.

    In containers and batch systems, these can be fewer than the cores of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def return_freed_memory() -> None:
    """Tell glibc's malloc to return freed memory to the kernel. Every thread has some that it would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries do not have it
    if trim is not None:
        trim(0)
