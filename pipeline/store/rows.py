"""Rows of datasets that are computed in blocks, by several threads or processes.

An uncompressed dataset has its place in the file before its rows are computed: whoever computes rows writes
them there. The rows of a compressed dataset are compressed by whoever computes them, and added to the file,
in order, by the process that has it open. So no row is written or compressed twice.

    dataset ─ at(rows) ─► target, which can be sent to another process ─ write(values) ─► what is kept of them
"""

import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError, first_line

Kept = Mapping[str, NDArray[Any]]
LEVEL = 1  # of gzip


class Target(Protocol):
    """Where the rows of a block go."""

    def write(self, values: NDArray[Any]) -> Kept:
        """Write the rows, or pack them; return what is kept of them besides.

        Raises:
            ValueError: they have another shape than their dataset, or another kind of type.
            MacError: they cannot be written.
        """

    def holds(self, kept: Kept) -> bool:
        """Whether the rows of which this was kept are still there."""


class Rows(Protocol):
    """A dataset whose rows are computed in blocks."""

    def at(self, start: int, stop: int) -> Target:
        """Where the rows from `start` to `stop` − 1 of the computation go."""

    def add(self, kept: Kept) -> None:
        """Take what was kept of a block. It is called for each block, in the order of rows."""


@dataclass(frozen=True)
class Place:
    """An uncompressed dataset whose rows are written at their offset.

    Attributes:
        path: the file.
        offset: of the dataset's first byte.
        axis: the axis of the rows; the axes before it are of draws.
        order: (*draws, n) where in this axis each row of the computation goes; None if the first goes first.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axis: int = 0
    order: NDArray[np.integer] | None = None

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * math.prod(self.shape[self.axis + 1 :])

    def stop(self, rows: int) -> int:
        """The offset after so many rows, where `axis` is 0."""
        return self.offset + rows * self.row

    def at(self, start: int, stop: int) -> "Spans":
        rows = np.arange(start, stop) if self.order is None else self.order[..., start:stop]
        return Spans(replace(self, order=None), rows)

    def add(self, kept: Kept) -> None:
        """The rows are there already."""


@dataclass(frozen=True)
class Spans:
    """Some rows of a place.

    Their spans are found where they are needed: with an order, those of all blocks together are many times as
    large as the order.

    Attributes:
        place: without its order.
        rows: (*draws, n) or (n,), where each goes in the axis of the rows.
    """

    place: Place
    rows: NDArray[np.integer]

    def spans(self) -> list[tuple[int, int]]:
        """Offset and bytes of each piece of the file, one after the other."""
        place, draws = self.place, self.place.shape[: self.place.axis]
        first = place.shape[place.axis] * np.arange(math.prod(draws)).reshape(*draws, 1)
        numbers = (first + self.rows).reshape(-1)
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
        return [(place.offset + int(run[0]) * place.row, len(run) * place.row) for run in runs]

    def write(self, values: NDArray[Any]) -> Kept:
        """Write the rows. The digest of each row is kept, (rows, 32) uint8."""
        place, start = self.place, 0
        shape = (*place.shape[: place.axis], self.rows.shape[-1], *place.shape[place.axis + 1 :])
        content = bytes_of(_fitting(values, shape, place.dtype))
        try:
            with _only_to_write(place.path) as handle:
                for offset, size in self.spans():
                    _write_at(handle, content[start : start + size], offset)
                    start += size
        except OSError as error:
            raise MacError(f"{place.path}: cannot be written ({first_line(error)})") from error
        return {"digest": digests(content, place.row)}

    def holds(self, kept: Kept) -> bool:
        spans, start = self.spans(), 0
        content = memoryview(bytearray(sum(size for _, size in spans)))
        with self.place.path.open("rb", buffering=0) as file:
            for offset, size in spans:
                if os.preadv(file.fileno(), [content[start : start + size]], offset) < size:
                    return False
                start += size
        return np.array_equal(digests(content, self.place.row), kept["digest"])

    def copy(self, other: "Spans") -> None:
        """Copy the bytes at other spans to these, of the same sizes."""
        with self.place.path.open("r+b", buffering=0) as file:
            for (offset, size), (start, _) in zip(self.spans(), other.spans(), strict=True):
                _write_at(file.fileno(), memoryview(os.pread(file.fileno(), size, start)), offset)


@dataclass
class Chunks:
    """A compressed dataset with a chunk for each row."""

    dataset: h5py.Dataset
    rows: int = 0  # that were added so far

    def at(self, start: int, stop: int) -> "Packing":
        return Packing(self.dataset.shape[1:], self.dataset.dtype)

    def add(self, kept: Kept) -> None:
        content, start, write = bytes_of(kept["packed"]), 0, self.dataset.id.write_direct_chunk
        rest = (0,) * (len(self.dataset.shape) - 1)
        for row, size in enumerate(kept["sizes"].tolist(), self.rows):
            write((row, *rest), content[start : start + size])
            start += size
        self.rows += len(kept["sizes"])


@dataclass(frozen=True)
class Packing:
    """Rows that are compressed, as HDF5's own filter does it.

    Attributes:
        shape, dtype: of a row.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def write(self, values: NDArray[Any]) -> Kept:
        """Compress the rows; there may be fewer than in the block. Their bytes and sizes are kept."""
        rows = _fitting(values, (len(values), *self.shape), self.dtype)
        return packed([zlib.compress(bytes_of(row), LEVEL) for row in rows])

    def holds(self, kept: Kept) -> bool:
        """All that is kept is what was kept: nothing else was written."""
        return True


def _fitting(values: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values as their dataset has them; a floating-point number may be rounded."""
    if values.shape != shape or not np.can_cast(values.dtype, dtype, "same_kind"):
        raise ValueError(f"the rows are {values.dtype} {values.shape}, and their dataset {dtype} {shape}")
    return values.astype(dtype, copy=False)


def packed(rows: Sequence[bytes]) -> Kept:
    """Rows that have no place yet: their bytes one after another, and their sizes."""
    sizes = np.array([len(each) for each in rows], np.int64)
    return {"packed": np.frombuffer(b"".join(rows), np.uint8), "sizes": sizes}


def digests(content: memoryview, row: int) -> NDArray[np.uint8]:
    """(rows, 32) the sha256 of each row, which has so many bytes."""
    starts = range(0, len(content), row)
    joined = b"".join(sha256(content[start : start + row]).digest() for start in starts)
    return np.frombuffer(joined, np.uint8).reshape(len(starts), 32)


def bytes_of(values: NDArray[Any]) -> memoryview:
    """The bytes of an array, in the order of C."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


@contextmanager
def _only_to_write(path: Path) -> Iterator[int]:
    """A file that is there. NFS passes what is written on when it is closed.

    It is not open to be read too: then NFS would read whole pages, and write back what others have changed.
    """
    handle = os.open(path, os.O_WRONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_at(handle: int, content: memoryview, offset: int) -> None:
    while len(content):
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
