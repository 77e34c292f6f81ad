"""Pictures that are each stored as the bytes of a lossless WebP file, and read like a dataset of pixels.

They lie in two datasets: `bytes`, all the files one after another, and `start`, where each begins. Pillow is
imported only where a picture is encoded or decoded.

    block of pixels ─ Encoding ─► bytes and sizes ─ Spool, in the order of rows ─► the datasets ─► Pictures
"""

import io
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError, first_line
from pipeline.store.rows import Kept

BYTES, START = "bytes", "start"  # the datasets, in a group
LARGEST_SIDE = 4096  # of a picture, pixels
EFFORT = {"method": 0, "quality": 0}  # of the encoder: the pixels are the same whatever it is
_HEAD = 25  # bytes of a file that tell its size
_PIECE = 1 << 20


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """An image, (H, W, 3) RGB, as a lossless WebP file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, **EFFORT)
    return file.getvalue()


def decode(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """What `encode` made a file of, (H, W, 3).

    Raises:
        ValueError: it is no such file, or has another size, (H, W).
    """
    from PIL import Image

    if (found := size_of(content)) != size:
        raise ValueError(f"is {found[1]} x {found[0]} pixels, and the first image {size[1]} x {size[0]}")
    try:
        with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
            return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))  # no copy
    except Exception as error:  # a decoder raises exceptions of every kind at damaged bytes
        raise ValueError(f"cannot be decoded ({first_line(error)})") from None


def size_of(content: bytes) -> tuple[int, int]:
    """Height and width of a lossless WebP file, from its first bytes (RFC 9649, section 3.4).

    Raises:
        ValueError: it is no such file, or is larger than any stored image.
    """
    if content[:4] != b"RIFF" or content[8:16] != b"WEBPVP8L" or content[20:21] != b"\x2f":
        raise ValueError("is no lossless WebP file")
    bits = int.from_bytes(content[21:_HEAD], "little")
    height, width = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"is {width} x {height} pixels, more than {LARGEST_SIDE}")
    return height, width


@dataclass(frozen=True)
class Encoding:
    """Where the pictures of a block go: each is encoded by whoever computed it."""

    def write(self, values: NDArray[Any]) -> Kept:
        """Encode pictures, (n, H, W, 3) uint8; there may be fewer than in the block.

        Their bytes and sizes are kept, and the sha256 of each one's pixels, as of rows at their places.
        """
        files = [encode(each) for each in values]
        digests = b"".join(sha256(np.ascontiguousarray(each).data).digest() for each in values)
        return {
            "packed": np.frombuffer(b"".join(files), np.uint8),
            "sizes": np.array([len(each) for each in files], np.int64),
            "digest": np.frombuffer(digests, np.uint8).reshape(len(files), -1),
        }

    def holds(self, kept: Kept) -> bool:
        """All that is kept is what was kept: nothing else was written."""
        return True


@dataclass
class Spool:
    """The encoded pictures of all blocks, in the order of rows, in a file until all of them are known.

    Only then is it known how many bytes they have, and where in the artefact they begin.
    """

    path: Path
    sizes: list[NDArray[np.int64]] = field(default_factory=list)

    def at(self, start: int, stop: int) -> Encoding:
        return Encoding()

    def add(self, kept: Kept) -> None:
        with self.path.open("ab" if self.sizes else "wb") as file:
            file.write(kept["packed"].data)
        self.sizes.append(kept["sizes"])

    @property
    def start(self) -> NDArray[np.int64]:
        """Where each picture begins."""
        sizes = np.concatenate(self.sizes)
        return np.cumsum(sizes) - sizes

    def fill(self, dataset: h5py.Dataset) -> None:
        """Copy the bytes into a dataset of as many, and remove the file."""
        position = 0
        for piece in self._pieces():
            dataset[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
            position += len(piece)
        self.path.unlink()

    @property
    def total(self) -> int:
        """Bytes of all pictures."""
        return sum(int(sizes.sum()) for sizes in self.sizes)

    def _pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


class Pictures:
    """Encoded pictures, read like a dataset (N, H, W, 3) uint8. They are decoded in threads.

    Args:
        content, start: the two datasets.
        where: what they are, for messages.
        remedy: what to do if one is damaged.

    Raises:
        ValueError: the first one is no lossless WebP file.
    """

    dtype = stored = np.dtype(np.uint8)

    def __init__(self, content: h5py.Dataset, start: h5py.Dataset, where: str, remedy: str) -> None:
        self._content, self._where, self._remedy = content, where, remedy
        self._start: NDArray[np.int64] = start[:]
        self._stop = np.append(self._start[1:], len(content))
        try:
            self.shape = (len(self._start), *size_of(self._bytes(0, _HEAD)), 3)
        except ValueError as error:
            raise ValueError(f"{where}: row 0 {error}") from None
        self.chunks = (1, *self.shape[1:])
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Pixels, indexed as an array of all of them would be."""
        index = index if isinstance(index, tuple) else (index,)
        every = np.arange(len(self))
        chosen = every[index[0]] if index and index[0] is not Ellipsis else every
        rest = index if index and index[0] is Ellipsis else (*[slice(None)] * np.ndim(chosen), *index[1:])
        found = self.rows(np.ravel(chosen)).reshape(*np.shape(chosen), *self.shape[1:])
        pixels: NDArray[np.uint8] = found[rest]
        return pixels

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The pictures of some rows, (n, H, W, 3).

        Raises:
            MacError: one of them is damaged.
        """
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def put(position: int) -> None:
            found[position] = self._decoded(int(rows[position]))

        list(_threads().map(put, range(len(rows))))
        return found

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        try:
            return decode(self._bytes(row), self.shape[1:3])
        except ValueError as error:
            raise MacError(f"{self._where}: row {row} {error}; {self._remedy}") from None

    def _bytes(self, row: int, most: int | None = None) -> bytes:
        start, stop = int(self._start[row]), int(self._stop[row])
        content: bytes = self._content[start : stop if most is None else min(stop, start + most)].tobytes()
        return content


@cache
def _threads() -> ThreadPoolExecutor:
    """The threads that decode, of all files together: Pillow decodes without the GIL."""
    return ThreadPoolExecutor(os.cpu_count(), "decode")
