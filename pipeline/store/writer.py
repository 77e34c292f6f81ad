"""Writes an HDF5 artefact with the datasets of a schema: completely, or not at all.

Rows at places survive an unfinished try: the next one finds them.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.store.encoded import BYTES, OFFSET, Sizes
from pipeline.store.files import MOST_TEXT, ballast, decoded, replacing, sync, write_json
from pipeline.store.provenance import VERSION
from pipeline.store.rows import LEVEL, Chunks, Place
from pipeline.store.schema import Field, Schema
from pipeline.store.seal import SEAL, seal
from pipeline.store.verified import remember, state_of

_PIECE = 1 << 18  # it fits into the cache of a core
_LIBVER = ("v108", "v108")


class Writer:
    """An HDF5 artefact that is being written. `file` is open, so that groups can be added (previews).

    Args:
        path: the artefact; it is named in messages.
        made_at: the file that is written, and becomes the artefact. Rows that are there at places of an
            earlier, unfinished try stay there.
    """

    def __init__(self, path: Path, made_at: Path, schema: Schema) -> None:
        self._path, self._made_at, self._fields = path, made_at, schema
        self.noted = made_at.with_suffix(".places.json")
        # Offset and bytes of all places, also of those of earlier tries: this one may end before it makes
        # them again.
        self._spans = set(_noted_spans(self.noted))
        self._end = 0  # of the places that were made in this try
        self._digest = _FileDigest(made_at)
        _empty(made_at, sorted(self._spans))
        self.file = _to_write(made_at)

    def create(self, name: str, shape: Sequence[int], dtype: str | None = None) -> h5py.Dataset:
        """Create the schema's dataset `name` with all its rows, to be filled by slices of checked values.

        Args:
            dtype: one of the field's dtypes; None for the first.
        """
        field = self._fields[name]
        options: dict[str, Any] = {}
        if field.layout == "gzip" and shape[0] > 0:
            options = {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": LEVEL}
        dataset = self.file.create_dataset(name, tuple(shape), np.dtype(dtype or field.dtype), **options)
        _describe(dataset, field)
        return dataset

    def place(
        self,
        name: str,
        shape: Sequence[int],
        axis: int = 0,
        order: NDArray[np.integer] | None = None,
        dtype: str | None = None,
    ) -> Place:
        """Create an uncompressed dataset, whose rows whoever computes them writes.

        Args:
            axis, order: where rows go, see `Place`.
            dtype: another one than the schema's, to which floating-point numbers are rounded.
        """
        field = self._fields[name]
        dataset = self.file.create_dataset(
            name, tuple(shape), np.dtype(dtype or field.dtype), dcpl=_unfilled()
        )
        _describe(dataset, field)
        found = Place(self._made_at, dataset.id.get_offset(), dataset.shape, dataset.dtype, axis, order)
        self._end = max(self._end, found.offset + dataset.nbytes)
        self._spans.add((found.offset, dataset.nbytes))
        write_json(self.noted, sorted(self._spans))
        return found

    def chunks(self, name: str, shape: Sequence[int]) -> Chunks:
        """Create a compressed dataset, whose rows whoever computes them compresses."""
        return Chunks(self.create(name, shape))

    def write_pictures(self, name: str, sizes: Sizes, packed: Iterable[NDArray[np.uint8]]) -> None:
        """Write a dataset of pictures that are encoded.

        Args:
            packed: their bytes, block after block.
        """
        group, position = self._fields[name].encoded, 0
        self.write(f"{group}/{OFFSET}", sizes.offset)
        dataset = self.create(f"{group}/{BYTES}", (int(sizes.offset[-1]),))
        for each in packed:
            dataset[position : position + len(each)] = each
            position += len(each)

    def keep_rows(self, name: str, place: Place, rows: NDArray[np.integer]) -> None:
        """Leave out all but some rows of an uncompressed dataset; `rows` are in ascending order."""
        del self.file[name]
        moved = self.place(name, (len(rows), *place.shape[1:]))
        if moved.offset != place.offset:
            raise RuntimeError(f"{name}: HDF5 gave {moved.offset} in place of {place.offset}")
        for to, row in enumerate(rows.tolist()):
            if to != row:
                moved.at(to, to + 1).copy(place.at(row, row + 1))

    def write(self, name: str, values: NDArray[Any] | Sequence[str]) -> None:
        """Create and fill a dataset that fits in memory.

        Raises:
            MacError: a value is not what the schema allows, such as a NaN.
        """
        field = self._fields[name]
        if field.dtype == "utf-8":
            encoded = [str(value).encode() for value in values]
            dtype = h5py.string_dtype("utf-8", max((len(e) for e in encoded), default=1) or 1)
            dataset = self.file.create_dataset(name, data=np.array(encoded, dtype=dtype), dtype=dtype)
            _describe(dataset, field)
        else:
            array = np.asarray(values)
            if array.size and (problem := field.problem(array, {})):
                raise MacError(f"{self._path}: cannot be written: dataset '{name}' {problem}")
            dtype = array.dtype.name if array.dtype.name in field.dtypes else None
            self.create(name, array.shape, dtype)[...] = array

    def settle(self) -> None:
        """Write all but rows at places. After it nothing else is written, unless it is taken up again.

        So the digest can be computed while rows are written: see `follow`.
        """
        if self.file:  # it is open
            self.file.flush()  # the bytes depend on when it is written
            self.file.attrs["complete"] = True
            self.file.flush()
            self.file.close()

    def follow(self, place: Place, rows: int) -> None:
        """After `settle`, and after so many rows of the first place are written: read them for the digest."""
        self._digest.to(place.stop(rows))

    def keep_places(self) -> None:
        """Before an unfinished file is closed: have HDF5 keep the places of earlier tries, for the next one.

        It cuts off what lies after the last dataset that it knows.
        """
        rest = max((offset + size for offset, size in self._spans), default=0) - self._end
        if self.file and rest > 0:
            with suppress(OSError, RuntimeError, ValueError):  # another error is on its way
                self.file.create_dataset("rest", (rest,), np.uint8, dcpl=_unfilled())

    def take_up(self) -> None:
        """Write again, after `settle`."""
        self._digest = _FileDigest(self._made_at)
        self.file = _to_write(self._made_at)
        del self.file.attrs["complete"]

    def seal(self) -> None:
        """Bring what was written to the disk, and state its digest in it."""
        with ThreadPoolExecutor(1) as pool:  # sync and digest at the same time
            written = pool.submit(sync, self._made_at)
            digest = self._digest.to(None)
            written.result()
        with self._made_at.open("r+b") as sealed:
            sealed.write(seal(digest))


@contextmanager
def create(
    path: Path,
    kind: str,
    schema: Schema,
    params: Mapping[str, Any],
    made_from: Mapping[str, str],
    scratch: Path | None = None,
    **attributes: Any,
) -> Iterator[Writer]:
    """Write an HDF5 artefact under a temporary name. It is renamed if the block raises no exception.

    Args:
        kind: its name, such as `images`.
        schema: the datasets that it may have.
        scratch: the folder of the computation, in which the file is made. If the block raises an exception,
            the file stays there, and rows at their places are found by the next try. None: it is made beside
            `path`, and removed.
        attributes: further root attributes (class names and the like), JSON-able.

    Raises:
        MacError: the folder cannot be written, the disk is full, or an attribute is too long. An old file at
            `path` is unchanged.
    """
    texts = {
        "params": json.dumps(params, sort_keys=True),
        "made_from": json.dumps(made_from, sort_keys=True),
    }
    texts |= {name: json.dumps(value, ensure_ascii=False) for name, value in attributes.items()}
    for name, text in texts.items():
        if len(text.encode()) > MOST_TEXT:
            raise MacError(f"{path}: cannot be written: attribute '{name}' is too long")
    states: list[str] = []  # the last one is that of the file that comes to be at `path`
    made = scratch and scratch / path.name
    with replacing(path, made_at=made, last=lambda file: states.append(state_of(file))) as made_at:
        try:
            with ballast(made_at) as let_go:
                writer = Writer(path, made_at, schema)
                try:
                    writer.file.attrs["schema"] = kind
                    writer.file.attrs["version"] = VERSION
                    for name, text in texts.items():
                        writer.file.attrs[name] = text
                    yield writer
                    writer.settle()
                except BaseException:
                    let_go()
                    writer.keep_places()
                    raise
                finally:
                    writer.file.close()
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # HDF5 could not close the file either
                raise error.__context__ from None
            raise
        writer.seal()
    writer.noted.unlink(missing_ok=True)  # only now: until then, another try needs it
    remember(path, schema, states[-1])


class _FileDigest:
    """The digest of what follows the seal of a file, computed while the file is written.

    What was read must not change any more.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._sha256, self._position = path, hashlib.sha256(), SEAL

    def to(self, stop: int | None) -> str:
        """The digest up to an offset, or to the end. What was read is also brought to the disk."""
        piece = memoryview(bytearray(_PIECE))
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._position)
            while size := file.readinto(piece[: None if stop is None else stop - self._position]):
                self._sha256.update(piece[:size])
                self._position += size
            if stop is not None:
                os.fdatasync(file.fileno())
        return self._sha256.hexdigest()


def _noted_spans(noted: Path) -> list[tuple[int, int]]:
    """The places of earlier tries, offset and bytes of each; none if they are not told."""
    try:
        spans = [(offset, size) for offset, size in decoded(noted.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []
    are_right = all(type(number) is int and number >= 0 for number in chain(*spans))
    return spans if are_right else []


def _empty(path: Path, kept: Sequence[tuple[int, int]]) -> None:
    """Make an HDF5 file with nothing in it; but what an earlier file of this name had at some places stays.

    HDF5 allocates as in a new file. So who creates the same datasets finds their rows. All other bytes are
    zero, as in a new file.

    Args:
        kept: offset and bytes of each place.
    """
    empty, position = io.BytesIO(), 0
    h5py.File(empty, "w", libver=_LIBVER, userblock_size=SEAL).close()
    path.touch()
    with path.open("r+b") as file:
        file.truncate(max((offset + size for offset, size in kept), default=0))
        for offset, size in sorted(kept):
            file.seek(position)
            for start in range(position, offset, _PIECE):
                file.write(bytes(min(_PIECE, offset - start)))
            position = max(position, offset + size)
        file.seek(0)
        file.write(empty.getvalue())


def _unfilled() -> h5py.h5p.PropDCID:
    """Of a dataset that has its place at once, so that its offset is known. What is there stays."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.CONTIGUOUS)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return made


def _to_write(path: Path) -> h5py.File:
    return h5py.File(path, "r+", libver=_LIBVER, locking=False)


def _describe(dataset: h5py.Dataset, field: Field) -> None:
    dataset.attrs["about"] = field.about
    for axis, name in enumerate(field.axes):
        dataset.dims[axis].label = name
