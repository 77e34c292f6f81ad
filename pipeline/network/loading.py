"""Reads batches of stored images before the computation needs them."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.store import Artefact

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items; a thread makes up to `depth` of them in advance (HDF5 releases the GIL when it reads)."""
    ready: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, object]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # the consumer raises it
            put((False, error))

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if more:
                yield item  # type: ignore[misc]
            elif isinstance(item, BaseException):
                raise item
            else:
                return
    finally:
        stopped.set()
        thread.join()


def to_pinned(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor on the host; `to(device, non_blocking=True)` copies it while the device computes."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def image_batches(
    images: Artefact, batches: Iterable[NDArray[np.integer]], device: torch.device
) -> Iterator[Tensor]:
    """The stored images of each batch of rows of images.h5: (B, H, W, 3) uint8 on the device."""
    for batch in prefetch(to_pinned(images.rows("image", rows), device) for rows in batches):
        yield batch.to(device, non_blocking=True)
