"""How many threads the libraries of this process compute with."""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """PyTorch, and the BLAS of NumPy and SciPy, have so many threads, whatever the environment says."""
    import torch  # a process that limits BLAS alone may do without it

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with blas_limited(threads):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def blas_limited(threads: int) -> Iterator[None]:
    """The BLAS of NumPy and SciPy has so many threads, as far as it is loaded already."""
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        yield
