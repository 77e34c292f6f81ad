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


def own_cores() -> int:
    """How many of these cores are this process's own share, if others compute beside it; at least one.

    torchrun says how many processes it started on the machine. Of others, OMP_NUM_THREADS says the share: the
    workers of a cluster have it.
    """
    cores, said = usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    if beside := os.environ.get("LOCAL_WORLD_SIZE"):  # torchrun; it sets OMP_NUM_THREADS to 1 in any case
        return max(1, cores // int(beside))
    return max(1, min(cores, int(said))) if said.isdecimal() else cores


def return_freed_memory() -> None:
    """Tell glibc's malloc to return freed memory to the kernel. Every thread has some that it would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries do not have it
    if trim is not None:
        trim(0)
