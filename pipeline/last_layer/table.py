"""Cached features as one table: in memory, or read from the file in every pass.

Both give the same values, so a fit has the same result with either.
"""

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MacError, first_line
from pipeline.network.loading import prefetch
from pipeline.store import Artefact

READ = 8 << 20  # bytes of features that are read at a time, if one step does not need more
AHEAD = 2  # such reads in advance
BLOCK = 32 << 20  # bytes of features that are worked on at a time, if all of them are


class Table(Protocol):
    """T rows of D features, float32; each row is a view of an image."""

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the rows are wanted."""
        ...

    @property
    def index_on(self) -> torch.device:
        """Where the numbers of rows should be."""
        ...

    def __len__(self) -> int:
        """T."""
        ...

    def rows(self, wanted: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        """The rows of each of `wanted`, (n, D) on the device; not to be changed.

        Their memory is used again as soon as the next are asked for.

        Args:
            wanted: numbers of rows, from 0, (n,) int64 on `index_on`, or a slice. A thread may iterate over
                it.

        Raises:
            IndexError: a number is past the end. A slice is cut there.
        """
        ...


def step_of(table: Table, size: int | None = None) -> int:
    """How many rows a block of at most `size` bytes has (None: BLOCK); one, if one row is larger."""
    return max(1, (size or BLOCK) // (4 * table.width))


def blocks(table: Table, start: int, stop: int, size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Successive rows of a table, a few at a time: which they are, and the rows (n, D).

    Args:
        size: the most bytes of a block; None: BLOCK.
    """
    step = step_of(table, size)
    cut = [slice(first, min(first + step, stop)) for first in range(start, stop, step)]
    yield from zip(cut, table.rows(cut), strict=True)


@dataclass(frozen=True)
class Resident:
    """A table in memory.

    Attributes:
        values: (T, D) float32 on the device.
    """

    values: Tensor

    @classmethod
    def of(cls, table: Table) -> "Resident":
        """The rows of another table."""
        values = torch.empty(len(table), table.width, device=table.device)
        for block, rows in blocks(table, 0, len(table)):
            values[block] = rows
        return cls(values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def index_on(self) -> torch.device:
        return self.device

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, wanted: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        for each in wanted:
            # index_select copies whole rows: twice as fast as an index in brackets.
            yield self.values[each] if isinstance(each, slice) else self.values.index_select(0, each)


class Streamed:
    """A table in a file, of which little is in memory at a time. A thread reads ahead.

    It reads with `preadv`: what is read of a memory map counts as this process's memory. Neighbouring rows
    are read at once. The file stays open as long as the table is there.

    Args:
        features: the artefact.
        names: its datasets (…, D), one after another.
        device: where the rows are wanted.
    """

    def __init__(self, features: Artefact, names: Sequence[str], device: torch.device) -> None:
        self.width, self.device, self.index_on = features[names[0]].shape[-1], device, torch.device("cpu")
        self._dtype, self._path = features.stored(names[0]), features.path
        if any(features.stored(name) != self._dtype for name in names):
            raise MacError(f"{features.path}: its features have two dtypes; run 'mac features'")
        places = [features.stored_at(name) for name in names]
        self._file = os.dup(places[0][0])
        weakref.finalize(self, os.close, self._file)
        # Where each dataset begins: among the rows, and in the file.
        ends = np.cumsum([features[name].size // self.width for name in names])
        self._first, self._rows = np.concatenate([[0], ends[:-1]]), int(ends[-1])
        self._offset = np.array([offset for _, offset in places])
        self._row_bytes = self.width * self._dtype.itemsize

    def __len__(self) -> int:
        return self._rows

    def rows(self, wanted: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        for several in prefetch(self._read(wanted), AHEAD):
            for each in several:
                if each.is_cuda:
                    each.record_stream(torch.cuda.current_stream(self.device))
                yield each.float()

    def _read(self, wanted: Iterable[Tensor | slice]) -> Iterator[tuple[Tensor, ...]]:
        """The rows of several of `wanted` at a time, as they are in the file, on the device.

        One group of them is in use, AHEAD are ready and one is being read; so many buffers take turns.
        """
        pinned, dtype = self.device.type == "cuda", torch.from_numpy(np.empty(0, self._dtype)).dtype
        copying = torch.cuda.Stream(self.device) if pinned else None
        buffers = [torch.empty(0, self.width)] * (1 if pinned else AHEAD + 2)
        for number, several in enumerate(self._grouped(wanted)):
            index, turn = np.concatenate(several), number % len(buffers)
            if len(buffers[turn]) < len(index):
                buffers[turn] = torch.empty(len(index), self.width, dtype=dtype, pin_memory=pinned)
            found = buffers[turn][: len(index)]
            self._fill(index, found.numpy())
            if copying is not None:
                with torch.cuda.stream(copying):
                    found = found.to(self.device, non_blocking=True)
                copying.synchronize()
            yield found.split([len(each) for each in several])

    def _grouped(self, wanted: Iterable[Tensor | slice]) -> Iterator[list[NDArray[np.int64]]]:
        """The numbers of rows, so many together that READ bytes are read, or one."""
        several: list[NDArray[np.int64]] = []
        count = 0
        for each in wanted:
            index = np.arange(*each.indices(len(self))) if isinstance(each, slice) else each.numpy()
            if several and (count + len(index)) * self._row_bytes > READ:
                yield several
                several, count = [], 0
            several.append(index)
            count += len(index)
        if several:
            yield several

    def _fill(self, index: NDArray[np.int64], found: NDArray[np.floating]) -> None:
        """Read rows (n,) into `found`, (n, D)."""
        if not len(index):
            return
        if index.min() < 0 or index.max() >= len(self):
            raise IndexError(f"{self._path}: {len(self)} rows, and one with another number is wanted")
        buffer = found.reshape(-1).view(np.uint8).data
        part = np.searchsorted(self._first, index, "right") - 1
        offset = self._offset[part] + (index - self._first[part]) * self._row_bytes
        starts = np.append(0, np.flatnonzero(np.diff(offset) != self._row_bytes) + 1)
        ends = np.append(starts[1:], len(index)) * self._row_bytes
        pieces = (offset[starts], starts * self._row_bytes, ends)
        for at, start, end in zip(*(each.tolist() for each in pieces), strict=True):
            while start < end:
                try:
                    done = os.preadv(self._file, [buffer[start:end]], at)
                except OSError as error:
                    raise MacError(f"{self._path}: cannot be read ({first_line(error)})") from None
                if not done:
                    raise MacError(f"{self._path}: it ends too early; run 'mac features'")
                start, at = start + done, at + done
