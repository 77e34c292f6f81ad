"""Bounds the memory of decoded images, however many threads decode: those that are held have few pixels."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.machine import return_freed_memory

MOST = 2**28  # pixels of all images that are held at a time: 1 GB, as Pillow stores them
_LARGE = 2**25  # pixels that are worth returning

_changed = threading.Condition()
_held = {"pixels": 0}  # by all threads
_own = threading.local()


@contextmanager
def holding_images() -> Iterator[None]:
    """Images that this thread decodes in the block are held until its end."""
    _own.pixels = 0
    try:
        yield
    finally:
        if _own.pixels >= _LARGE:
            return_freed_memory()
        with _changed:
            _held["pixels"] -= _own.pixels
            _changed.notify_all()
        del _own.pixels


def announce(pixels: int) -> None:
    """Wait until an image of so many pixels may be decoded; one in wider numbers counts several times.

    An image that is larger than all that may be held is decoded alone. A thread that holds an image does not
    wait for the next one, its mask. Outside of `holding_images`, nothing is known to end, so nothing waits.
    """
    if not hasattr(_own, "pixels"):
        return
    with _changed:
        _changed.wait_for(lambda: _own.pixels or not _held["pixels"] or _held["pixels"] + pixels <= MOST)
        _held["pixels"] += pixels
        _own.pixels += pixels
