"""Pictures that are each stored as the bytes of a lossless WebP file, and read like a dataset of pixels.

They lie in two datasets: `bytes`, all the files one after another, and `offset`, where each begins and the
last one ends. Pillow is imported only where it is used.

    block of pixels ─ Encoding ─► record: bytes and sizes ─ Sizes, when all are known ─► datasets ─► Pictures
"""

import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError, first_line
from pipeline.machine import own_cores
from pipeline.store.rows import Kept, bytes_of, digests, packed

BYTES, OFFSET = "bytes", "offset"  # the datasets, in a group
LARGEST_SIDE = 4096  # of a picture, pixels
MOST_PACKED = 100  # bytes of pixels for one of a file; WebP alone would pack a picture of one colour further
EFFORT = {"method": 0, "quality": 0}  # of the encoder: the pixels are the same whatever it is
_HEAD = 25  # bytes of a file that tell its size


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """An image, (H, W, 3) RGB, as a lossless WebP file, with zeros at its end if it is very small."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, **EFFORT)
    return file.getvalue().ljust(_least(pixels.shape[:2]), b"\0")


def decode(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """What `encode` made a file of, (H, W, 3).

    Raises:
        ValueError: it is no such file, or has another size, (H, W).
    """
    from PIL import Image

    if (found := size_of(content)) != size:
        raise ValueError(f"is {found[1]} x {found[0]} pixels, and the first image {size[1]} x {size[0]}")
    stated = max(8 + int.from_bytes(content[4:8], "little"), _least(size))
    if len(content) != stated:
        raise ValueError(f"has {len(content)} bytes, expected {stated}")
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


def _least(size: tuple[int, ...]) -> int:
    """The fewest bytes that a file of this size, (H, W), has."""
    return -(-3 * math.prod(size) // MOST_PACKED)


def _most(size: tuple[int, ...]) -> int:
    """More bytes than a file of this size, (H, W), has: noise takes 3 for a pixel, and some more."""
    return 4 * math.prod(size) + 4096


def webp() -> str | None:
    """The version of the library that Pillow encodes and decodes with; None if it was built without it."""
    from PIL import features

    return features.version("webp")


def require_webp() -> None:
    """Raise a MacError if Pillow was built without WebP."""
    if webp() is None:
        raise MacError(
            "dataset.storage: encoded needs WebP, and this Pillow was built without it; install Pillow's own "
            "wheel, which has it"
        )


@dataclass(frozen=True)
class Encoding:
    """Where the pictures of a block go: each is encoded by whoever computed it."""

    def write(self, values: NDArray[Any]) -> Kept:
        """Encode pictures, (n, H, W, 3) uint8; there may be fewer than in the block.

        Their bytes and sizes are kept, and the sha256 of each one's pixels, as of rows at their places.
        """
        row = math.prod(values.shape[1:]) * values.itemsize
        return {**packed([encode(each) for each in values]), "digest": digests(bytes_of(values), row)}

    def holds(self, kept: Kept) -> bool:
        """All that is kept is what was kept: nothing else was written."""
        return True


@dataclass
class Sizes:
    """The sizes of the encoded pictures of all blocks, in the order of rows.

    Only when all are known is it known how many bytes they have together. Until then, the pictures lie in the
    records of their blocks.
    """

    of_blocks: list[NDArray[np.int64]] = field(default_factory=list)

    def at(self, start: int, stop: int) -> Encoding:
        return Encoding()

    def add(self, kept: Kept) -> None:
        self.of_blocks.append(kept["sizes"])

    @property
    def offset(self) -> NDArray[np.int64]:
        """(N + 1,) where each picture begins, and where the last one ends."""
        return np.cumsum(np.concatenate([[0], *self.of_blocks]))


class Pictures:
    """Encoded pictures, read like a dataset (N, H, W, 3) uint8. They are decoded in threads.

    Args:
        content: the dataset of bytes.
        offset: (N + 1,) checked numbers: from 0 to the bytes of `content`, rising.
        where: what they are, for messages.
        remedy: what to do if one is damaged.

    Raises:
        ValueError: the first one is no lossless WebP file; the bytes are in chunks; or a picture has fewer or
            more bytes than one of this size can have. So reading takes no more memory than `MOST_PACKED`
            times the bytes that are read.
    """

    dtype = stored = np.dtype(np.uint8)

    def __init__(self, content: h5py.Dataset, offset: NDArray[np.int64], where: str, remedy: str) -> None:
        self._content, self._offset, self._where, self._remedy = content, offset, where, remedy
        if content.id.get_offset() is None:
            raise ValueError("is in chunks, expected one piece")
        try:
            side = size_of(content[: min(int(offset[1]), _HEAD)].tobytes())
        except ValueError as error:
            raise ValueError(f"row 0 {error}") from None
        sizes, low, high = np.diff(offset), _least(side), _most(side)
        if sizes.min() < low or sizes.max() > high:
            raise ValueError(
                f"has files of {sizes.min()} to {sizes.max()} bytes, expected {low} to {high} for "
                f"{side[1]} x {side[0]} pixels"
            )
        self.shape = (len(sizes), *side, 3)
        self.ndim = len(self.shape)  # dask asks for it
        self._every = np.arange(len(sizes))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Pixels, indexed as an array of all of them would be."""
        index = index if isinstance(index, tuple) else (index,)
        chosen = self._every[index[0]] if index and index[0] is not Ellipsis else self._every
        rest = index if index and index[0] is Ellipsis else (*[slice(None)] * np.ndim(chosen), *index[1:])
        found = self.rows(np.ravel(chosen)).reshape(*np.shape(chosen), *self.shape[1:])
        pixels: NDArray[np.uint8] = found[rest]
        return pixels

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The pictures of some rows, (n, H, W, 3).

        They are read with `pread`: h5py reads one at a time, and takes longer for it.

        Raises:
            MacError: one of them is damaged, or cannot be read.
            ValueError: the file is closed.
        """
        file, first = self._content.file.id.get_vfd_handle(), self._content.id.get_offset()
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def put(position: int) -> None:
            row = int(rows[position])
            start, stop = self._offset[row : row + 2].tolist()
            try:
                found[position] = decode(os.pread(file, stop - start, first + start), self.shape[1:3])
            except ValueError as error:
                raise MacError(f"{self._where}: row {row} {error}; {self._remedy}") from None
            except OSError as error:
                raise MacError(
                    f"{self._where}: row {row} cannot be read ({first_line(error)}); {self._remedy}"
                ) from error

        list(_threads().map(put, range(len(rows))))
        return found


@cache
def _threads() -> ThreadPoolExecutor:
    """The threads that decode, of all files together: Pillow decodes without the GIL."""
    return ThreadPoolExecutor(own_cores(), "decode")


os.register_at_fork(after_in_child=_threads.cache_clear)  # the child has none of the threads
