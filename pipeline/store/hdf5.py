"""HDF5 artefacts: `create` writes one with the datasets of a schema, `open_artefact` opens and checks it.

A file may come from anyone. So it is opened in one place, its structure is checked before any value is read,
and nothing is opened that the schema does not name. What is checked, and what is not, is in SECURITY.md.
"""

import fcntl
import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError, first_line
from pipeline.spec import checked_names
from pipeline.store.encoded import BYTES, START, Pictures, Spool
from pipeline.store.files import MOST_TEXT, ballast, decoded, regular, replacing, sync, write_json
from pipeline.store.provenance import VERSION, Provenance, digest_of, file_digest
from pipeline.store.rows import LEVEL, Chunks, Place
from pipeline.store.schema import NAMES, Codes, Field, Orders, Schema

SEAL = 512  # bytes of the HDF5 user block


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

    def write_pictures(self, name: str, spool: Spool) -> None:
        """Write a dataset of pictures that are encoded."""
        group = self._fields[name].encoded
        self.write(f"{group}/{START}", spool.start)
        spool.fill(self.create(f"{group}/{BYTES}", (spool.total,)))

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
            sealed.write(_seal(digest))


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


_PIECE = 1 << 18  # it fits into the cache of a core


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


_LIBVER = ("v108", "v108")


def _describe(dataset: h5py.Dataset, field: Field) -> None:
    dataset.attrs["about"] = field.about
    for axis, dim in enumerate(field.dims):
        dataset.dims[axis].label = _axis(dim)


def _axis(dim: str | int) -> str:
    """The name of an axis; one of a fixed length has the channels of an image."""
    return dim if isinstance(dim, str) else "channel"


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
    with replacing(path, made_at=made, last=lambda file: states.append(_state(file))) as made_at:
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
    _remember(path, schema, states[-1])


def _to_read(path: Path) -> h5py.File:
    """The file, open for reading without a lock: artefacts are replaced, never changed.

    So they can be read while a viewer has them open, and on file systems without locks.
    """
    return h5py.File(path, "r", locking=False)


def _is_open_for_writing(path: Path) -> bool:
    """Whether another program holds HDF5's lock for writing. It has changed the file's first bytes then."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no locks on this file system
            pass
    return False


def _seal(digest: str) -> bytes:
    """The user block before the HDF5 data: the digest of all bytes that follow.

    HDF5 does not notice a flipped bit in the data, and a flipped bit in the structure can make it hang. So
    the bytes are checked before HDF5 reads them.
    """
    return f"MaC artefact; sha256 of what follows these {SEAL} bytes: {digest}\n".encode().ljust(SEAL, b"\0")


def stated_digest(path: Path) -> str | None:
    """The digest that the file states; None if it has no seal, cannot be read, or is no regular file."""
    try:
        return _sealed(path)
    except (OSError, MacError):
        return None


def _sealed(path: Path) -> str | None:
    """The digest that the file states; None if it has no seal."""
    with regular(path) as file:
        start = file.read(SEAL)
    digest = start.partition(b"bytes: ")[2][:64].decode("ascii", "replace")
    return digest if start == _seal(digest) else None


class _Dataset(h5py.Dataset):  # type: ignore[misc] # h5py has no types
    """A dataset that says of which file it is if it cannot be read.

    The caller may be writing another file, and would take an OSError for an error of that one. Half precision
    is read as float32.
    """

    def __init__(self, bound: h5py.h5d.DatasetID, name: str, remedy: str) -> None:
        super().__init__(bound)
        self._where, self._remedy = name, remedy
        self.stored = super().dtype

    @property
    def dtype(self) -> Any:
        """What is read."""
        return np.dtype(np.float32) if self.stored == np.float16 else self.stored

    def __getitem__(self, rows: Any, new_dtype: Any = None) -> Any:
        with self._read():
            values = super().__getitem__(rows, new_dtype)
        return values if values.dtype == self.dtype else values.astype(self.dtype)

    def read_direct(self, dest: NDArray[Any], source_sel: Any = None, dest_sel: Any = None) -> None:
        with self._read():
            super().read_direct(dest, source_sel, dest_sel)

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MacError(
                f"{self._where}: damaged, its data cannot be read ({first_line(error)}); {self._remedy}"
            ) from error


class Artefact:
    """A checked HDF5 artefact, open for reading. Index it by dataset name: `artefact["label"][:]`.

    It has the datasets that its schema names. Whatever else is in the file is not opened.

    Attributes:
        path: the file.
        provenance: what it was made from.
        lengths: the length of each axis, and of the names in `classes` and `attributes`.
        names: these names.
    """

    def __init__(
        self, path: Path, kind: str, file: h5py.File, schema: Schema, digest: str, remedy: str
    ) -> None:
        """Check the structure of a file.

        Raises:
            ValueError: something is not as the schema says.
        """
        self.path = path
        self._file, self._schema, self._remedy = file, schema, remedy
        _require_kind(kind, file)
        params, made_from = self.attribute("params"), self.attribute("made_from")
        self.provenance = Provenance.checked(params, made_from, digest)
        self.lengths: dict[str, int] = {}
        self._datasets: dict[str, h5py.Dataset] = {}
        encoded: list[str] = []
        for name, field in schema.items():
            found = _dataset(file, name, field, self.lengths)
            if found is not None:
                self._datasets[name] = _Dataset(found, f"{path}: dataset '{name}'", remedy)
            elif field.encoded:
                encoded.append(name)
            elif not field.optional:
                raise ValueError(f"dataset '{name}' is missing")
        for name in encoded:
            self._datasets[name] = self._pictures(name)
        self.names: dict[str, tuple[str, ...]] = {}
        numbered = {each.values.of for each in schema.values() if isinstance(each.values, Codes)}
        for name in numbered.intersection(NAMES):
            self.names[name] = checked_names(self.attribute(name), name)
            self.lengths[name] = len(self.names[name])
        if "classes" in self.names and not self.names["classes"]:
            raise ValueError("has no class")

    def _pictures(self, name: str) -> Pictures:
        """A dataset that the file has encoded.

        Raises:
            ValueError: it has not, or not as the schema says.
        """
        field = self._schema[name]
        parts = [self._datasets.get(f"{field.encoded}/{part}") for part in (BYTES, START)]
        if parts[0] is None or parts[1] is None:
            raise ValueError(f"dataset '{name}' is missing")
        found = Pictures(parts[0], parts[1], f"{self.path}: dataset '{name}'", self._remedy)
        if problem := field.misfit(found.shape, self.lengths):
            raise ValueError(f"dataset '{name}' {problem}")
        return found

    def __getitem__(self, name: str) -> h5py.Dataset:
        """A dataset; encoded pictures are decoded when it is read.

        Raises:
            MacError: it is not there, as an optional one may not be.
        """
        if name not in self._datasets:
            raise MacError(f"{self.path}: has no dataset '{name}'; {self._remedy}")
        return self._datasets[name]

    def __contains__(self, name: object) -> bool:
        return name in self._datasets

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    @property
    def digest(self) -> str:
        return self.provenance.digest

    def attribute(self, name: str) -> Any:
        """A root attribute that was given to `create`.

        Raises:
            ValueError: it is missing, or is not what `create` writes.
        """
        return decoded(_text(self._file, name))

    def stored(self, name: str) -> np.dtype[Any]:
        """The dtype that a dataset's values have in the file."""
        dtype: np.dtype[Any] = self._datasets[name].stored
        return dtype

    def stored_at(self, name: str) -> tuple[int, int]:
        """Where the values of a dataset begin, for `os.preadv`: the descriptor of the open file, an offset.

        Raises:
            MacError: they do not lie there one after another.
        """
        dataset = self[name]
        offset = dataset.id.get_offset()
        if offset is None:
            raise MacError(f"{self.path}: dataset '{name}' is in chunks, expected one piece; {self._remedy}")
        return self._file.id.get_vfd_handle(), offset

    def about(self, name: str) -> str:
        """What a dataset holds, in one line."""
        return self._schema[name].about

    def axes(self, name: str) -> list[str]:
        """The names of a dataset's axes."""
        return [_axis(dim) for dim in self._schema[name].dims]

    def count_of_group(self, name: str) -> int | None:
        """How many members a group has, which the schema does not name; None if it is not there.

        They are not opened.
        """
        if _link(self._file.id, name) != h5py.h5l.TYPE_HARD:
            return None
        place = h5py.h5o.open(self._file.id, name.encode())
        return len(place) if isinstance(place, h5py.h5g.GroupID) else None

    def rows(self, name: str, rows: NDArray[np.integer]) -> NDArray[Any]:
        """The given rows of a dataset, in the given order. Repeats are allowed; each row is read once."""
        dataset = self[name]
        unique, inverse = np.unique(rows, return_inverse=True)
        if isinstance(dataset, Pictures):
            return dataset.rows(unique)[inverse]
        values = np.empty((len(unique), *dataset.shape[1:]), dataset.dtype)
        # Neighbouring rows are read as slices: h5py's own indexing by lists is far slower.
        breaks = np.flatnonzero(np.diff(unique) != 1) + 1
        for run in np.split(np.arange(len(unique)), breaks):
            if len(run):
                here = np.s_[run[0] : run[-1] + 1]
                there = np.s_[unique[run[0]] : unique[run[-1]] + 1]
                dataset.read_direct(values, there, here)
        return values[inverse]

    def require_values(self, lengths: Mapping[str, int] | None = None) -> None:
        """Read values, and check that they are what the schema allows.

        Args:
            lengths: the lengths of other artefacts' axes, `<artefact>/<axis>`. If they are given, only the
                codes of these axes are read.

        Raises:
            ValueError: a value is not.
        """
        for name, dataset in self._datasets.items():
            field = self._schema[name]
            if lengths is None:
                _require_values(name, field, dataset, self.lengths)
            elif isinstance(field.values, Codes) and field.values.of in lengths:
                _require_values(name, field, dataset, lengths)
            if lengths is None and isinstance(field.values, Orders):
                batch = self._datasets[field.values.batches][:]
                if problem := field.values.contradiction(dataset[:], batch):
                    raise ValueError(f"dataset '{name}' {problem}")


@contextmanager
def open_artefact(
    path: Path, kind: str, schema: Schema, remedy: str, digest: str | None = None
) -> Iterator[Artefact]:
    """Open an HDF5 artefact and check it.

    Its structure is checked every time; its bytes and values only if the file is new or has changed.

    Args:
        kind: its name, such as `images`.
        schema: the datasets that it must have.
        remedy: what to do when something is wrong, such as `run 'mac prepare'`.
        digest: the digest that it must have.

    Raises:
        MacError: it is missing, no artefact, truncated, damaged, incomplete, of another kind or version, or
            open for writing elsewhere; or a dataset is missing, has the wrong form or a wrong value, or lies
            in another file. One line names file, dataset and remedy.
    """
    try:
        state, sealed = _state(path), _sealed(path)
        if sealed is None:
            raise MacError(f"{path}: is no MaC artefact, or damaged; {remedy}")
        is_known = _is_remembered(path, state, schema)
        if not is_known and _digest(path, state) != sealed:
            if _is_open_for_writing(path):
                raise BlockingIOError
            raise MacError(f"{path}: truncated or damaged, its contents are not what was written; {remedy}")
        file = _to_read(path)
    except FileNotFoundError:
        raise MacError(f"{path}: no such file; {remedy}") from None
    except BlockingIOError:  # from HDF5 too, if the environment makes it lock files
        raise MacError(f"{path}: another program has it open for writing; close it there first") from None
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from None
    with file:
        try:
            artefact = Artefact(path, kind, file, schema, sealed, remedy)
            if not is_known:
                artefact.require_values()
                _remember(path, schema, state)
        except ValueError as error:  # from here, or from h5py
            raise MacError(f"{path}: {first_line(error)}; {remedy}") from None
        except _BROKEN as error:
            raise MacError(
                f"{path}: damaged ({type(error).__name__}: {first_line(error)}); {remedy}"
            ) from None
        if digest is not None and artefact.digest != digest:
            raise MacError(f"{path}: was replaced while it was in use; run the same command again")
        yield artefact


# The exceptions that h5py raises for a file with a damaged structure.
_BROKEN = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)


def stated_kind(path: Path) -> str | None:
    """The kind that an HDF5 file states; None if it is no artefact, or damaged."""
    try:
        state, sealed = _state(path), _sealed(path)
        if sealed is None or (not _is_remembered(path, state) and _digest(path, state) != sealed):
            return None
        with _to_read(path) as file:
            return _text(file, "schema")
    except (MacError, *_BROKEN):
        return None


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _state(path: Path) -> str:
    """What changes with the file, and what nobody else can make up.

    The ctime is left out: it changes too when DVC makes a link of the file.
    """
    now = path.stat()
    return digest_of(now.st_size, now.st_mtime_ns, now.st_ino, _secret())


@cache
def _secret() -> str:
    """A secret of this user. Without a folder to keep it in, of this process."""
    new = token_hex()
    with suppress(OSError, MacError, RuntimeError, UnicodeDecodeError):  # RuntimeError: no home
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mac-robust", "secret")
        if not path.exists():
            with replacing(path) as temporary:
                temporary.touch(0o600)
                temporary.write_text(new)
        return path.read_text()
    return new


@lru_cache(maxsize=16)
def _digest(path: Path, _state: str) -> str:
    """The digest of a file in this state: what is stated of it and what is opened is read once."""
    return file_digest(path, SEAL)


def _remember(path: Path, schema: Schema, state: str) -> None:
    """Note beside the file that its contents are checked. They are read again only if it changes."""
    note = _note(path)
    with suppress(OSError):  # without the note, the contents are read every time
        note.unlink(missing_ok=True)  # it may be a link that came with the file
        with note.open("x") as new:
            new.write(f"{state}\n{_checks(schema)}")


def _is_remembered(path: Path, state: str, schema: Schema | None = None) -> bool:
    """Whether the file's bytes were checked in this state; and its values, if a schema is given."""
    try:
        if not stat.S_ISREG(_note(path).lstat().st_mode):
            return False
        noted, _, checks = _note(path).read_text().partition("\n")
        return noted == state and (schema is None or checks == _checks(schema))
    except (OSError, UnicodeDecodeError):
        return False


def _checks(schema: Schema) -> str:
    """Another text if anything else is checked."""
    return digest_of(VERSION, list(map(repr, schema.items())))


# --- The structure of a file, by HDF5's own functions: h5py's follow links and read labels unasked ---------


def _require_kind(kind: str, file: h5py.File) -> None:
    found = _text(file, "schema") if h5py.h5a.exists(file.id, b"schema") else "no MaC artefact"
    if found != kind:
        raise ValueError(f"holds '{found}', expected {kind}")
    version = _scalar(file, "version")
    if version != VERSION:
        raise ValueError(f"schema version {version}, this program reads {VERSION}")
    if _scalar(file, "complete") != 1:
        raise ValueError("incomplete")


def _attribute(file: h5py.File, name: str) -> h5py.h5a.AttrID:
    if not h5py.h5a.exists(file.id, name.encode()):
        raise ValueError(f"attribute '{name}' is missing")
    found = h5py.h5a.open(file.id, name.encode())
    if found.get_space().get_simple_extent_type() != h5py.h5s.SCALAR:
        raise ValueError(f"attribute '{name}' is no single value")
    return found


def _text(file: h5py.File, name: str) -> str:
    kind = _attribute(file, name).get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or kind.get_size() > MOST_TEXT:
        raise ValueError(f"attribute '{name}' is no text")
    found = file.attrs[name]
    text = found.decode() if isinstance(found, bytes) else str(found)
    if len(text) > MOST_TEXT:
        raise ValueError(f"attribute '{name}' is too long")
    return text


def _scalar(file: h5py.File, name: str) -> int:
    """A number or a truth value."""
    kind = _attribute(file, name).get_type()
    if not isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeEnumID)):
        raise ValueError(f"attribute '{name}' is no number")
    return int(file.attrs[name])


def _link(group: h5py.h5g.GroupID, name: str) -> int | None:
    """The kind of a link in a group; None if it is not there."""
    key = name.encode()
    return group.links.get_info(key).type if group.links.exists(key) else None


def _dataset(file: h5py.File, name: str, field: Field, lengths: dict[str, int]) -> h5py.h5d.DatasetID | None:
    """A dataset, after its structure is checked; None if it is not there.

    Args:
        lengths: the lengths of the axes that were seen so far, by name; those of this one are added.

    Raises:
        ValueError: it is not as the schema says, or lies elsewhere.
    """
    group, _, last = name.rpartition("/")  # the schemas have groups, and none within another
    kinds = (
        {group: h5py.h5o.TYPE_GROUP, last: h5py.h5o.TYPE_DATASET} if group else {last: h5py.h5o.TYPE_DATASET}
    )
    place = file.id
    for each, kind in kinds.items():
        link = _link(place, each)
        if link is None:
            return None
        if link != h5py.h5l.TYPE_HARD:
            raise ValueError(f"dataset '{name}' is in another file, or behind a link")
        if h5py.h5o.get_info(place, each.encode()).type != kind:
            raise ValueError(f"'{each}' is not a {'dataset' if each == last else 'group'}")
        place = h5py.h5o.open(place, each.encode())
    _require_form(name, field, place)
    shape = place.shape
    if problem := field.misfit(shape, lengths):
        raise ValueError(f"dataset '{name}' {problem}")
    _require_storage(name, field, place, file)
    return place


def _require_form(name: str, field: Field, dataset: h5py.h5d.DatasetID) -> None:
    """The type and the number of axes, and that the values lie in this file: as they are, or gzipped."""
    made, kind = dataset.get_create_plist(), dataset.get_type()
    layout, filters = made.get_layout(), made.get_nfilters()
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or made.get_external_count():
        raise ValueError(f"dataset '{name}' is in another file")
    allowed = [[]] if field.layout != "gzip" else [[], [h5py.h5z.FILTER_DEFLATE]]
    if [made.get_filter(number)[0] for number in range(filters)] not in allowed:
        raise ValueError(f"dataset '{name}' is packed by filters that MaC does not use")
    if field.dtype == "utf-8":
        is_right = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
    else:
        known = [h5py.h5t.py_create(np.dtype(dtype), logical=True) for dtype in field.dtypes]
        is_right = any(map(kind.equal, known))
    axes = dataset.get_space().get_simple_extent_ndims()
    if not is_right or kind.committed() or axes != len(field.dims):
        raise ValueError(
            f"dataset '{name}' is {_said(kind)} with {axes} axes, "
            f"expected {' or '.join(field.dtypes)} {field.dims}"
        )


def _said(kind: h5py.h5t.TypeID) -> str:
    try:
        return f"{kind.dtype}"
    except (TypeError, ValueError, RuntimeError):
        return "of no known type"


def _require_storage(name: str, field: Field, dataset: h5py.h5d.DatasetID, file: h5py.File) -> None:
    """That all of a dataset is there: what it says it has, its file can hold and does hold.

    So no more memory is taken for its rows than it can fill.
    """
    shape, item = dataset.shape, dataset.get_type().get_size()
    whole, row = item * math.prod(shape), item * math.prod(shape[1:])
    stored, most = dataset.get_storage_size(), file.id.get_filesize()
    packed = bool(dataset.get_create_plist().get_nfilters())
    if whole > most * (_DEFLATE if packed else 1) or stored > most:
        raise ValueError(f"dataset '{name}' says that it has {whole} bytes, more than the file can hold")
    if packed and row > _MOST_PER_ROW:
        raise ValueError(f"dataset '{name}' has rows of {row} bytes, more than {_MOST_PER_ROW}")
    if dataset.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
        chunks = dataset.get_create_plist().get_chunk()
        if chunks != (1, *shape[1:]):
            raise ValueError(f"dataset '{name}' has chunks of {chunks}, expected one for each row")
        if dataset.get_num_chunks() != shape[0]:
            raise ValueError(
                f"dataset '{name}' lacks rows: {dataset.get_num_chunks()} of {shape[0]} are there"
            )
    if not packed and stored != whole:
        raise ValueError(f"dataset '{name}' has {stored} of its {whole} bytes")


_DEFLATE = 1100  # the most bytes that gzip can pack into one, rounded up
_MOST_PER_ROW = 1 << 28  # bytes of a packed row: a mask of 16,384 × 16,384 pixels


# --- Values -----------------------------------------------------------------------------------------------


def _require_values(name: str, field: Field, dataset: h5py.Dataset, lengths: Mapping[str, int]) -> None:
    """Raise a ValueError if a value is not what the schema allows. Values are read in blocks."""
    if field.dtype == "uint8" or not dataset.size:
        return  # pixels: all of them are allowed
    for values in (dataset[:],) if field.checked_at_once else _blocks(dataset):
        if problem := field.problem(values, lengths):
            raise ValueError(f"dataset '{name}' {problem}")


def _blocks(dataset: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """All values, in blocks of no more than 16 MiB. A row of the last axes is not cut, nor is a chunk."""
    shape, item, axis = dataset.shape, dataset.dtype.itemsize, 0
    while dataset.chunks is None and axis < len(shape) - 1 and item * math.prod(shape[axis + 1 :]) > _BLOCK:
        axis += 1
    step = max(1, _BLOCK // (item * math.prod(shape[axis + 1 :])))
    for index in np.ndindex(shape[:axis]):
        for start in range(0, shape[axis], step):
            yield dataset[(*index, slice(start, start + step))]


_BLOCK = 16 << 20
