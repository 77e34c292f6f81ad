"""HDF5 artefacts: `create` writes one with the datasets of a schema, `open_artefact` opens and checks it."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError, first_line
from pipeline.store.files import ballast, replacing, sync
from pipeline.store.provenance import VERSION, Provenance, file_digest
from pipeline.store.schema import Field, Schema

SEAL = 512  # bytes of the HDF5 user block


class Writer:
    """An HDF5 artefact that is being written. `file` is open, so that groups can be added (previews)."""

    def __init__(self, file: h5py.File, schema: Schema) -> None:
        self.file = file
        self._fields = schema

    def create(self, name: str, shape: Sequence[int]) -> h5py.Dataset:
        """Create the schema's dataset `name` with all its rows, to be filled by slices."""
        field = self._fields[name]
        options: dict[str, Any] = {}
        if field.layout != "contiguous" and shape[0] > 0:
            options["chunks"] = (1, *shape[1:])
        if field.layout == "gzip":
            options |= {"compression": "gzip", "compression_opts": 1, "shuffle": False}
        dataset = self.file.create_dataset(name, tuple(shape), np.dtype(field.dtype), **options)
        _describe(dataset, field)
        return dataset

    def write(self, name: str, values: NDArray[Any] | Sequence[str]) -> None:
        """Create and fill a dataset that fits in memory."""
        field = self._fields[name]
        if field.dtype == "utf-8":
            encoded = [str(value).encode() for value in values]
            dtype = h5py.string_dtype("utf-8", max((len(e) for e in encoded), default=1) or 1)
            dataset = self.file.create_dataset(name, data=np.array(encoded, dtype=dtype), dtype=dtype)
            _describe(dataset, field)
        else:
            array = np.asarray(values)
            self.create(name, array.shape)[...] = array


def _describe(dataset: h5py.Dataset, field: Field) -> None:
    dataset.attrs["about"] = field.about
    for axis, dim in enumerate(field.dims):
        dataset.dims[axis].label = dim if isinstance(dim, str) else "channel"


@contextmanager
def create(
    path: Path,
    kind: str,
    schema: Schema,
    params: Mapping[str, Any],
    made_from: Mapping[str, str],
    **attributes: Any,
) -> Iterator[Writer]:
    """Write an HDF5 artefact under a temporary name. It is renamed if the block raises no exception.

    Args:
        kind: its name, such as `images`.
        schema: the datasets that it may have.
        attributes: further root attributes (class names and the like), JSON-able.

    Raises:
        MacError: the folder cannot be written, or the disk is full. An old file at `path` is unchanged.
    """
    with replacing(path) as temporary:
        try:
            with ballast(temporary) as let_go, _new_file(temporary) as file:
                try:
                    file.attrs["schema"] = kind
                    file.attrs["version"] = VERSION
                    file.attrs["params"] = json.dumps(params, sort_keys=True)
                    file.attrs["made_from"] = json.dumps(made_from, sort_keys=True)
                    for name, value in attributes.items():
                        file.attrs[name] = json.dumps(value, ensure_ascii=False)
                    yield Writer(file, schema)
                    file.attrs["complete"] = True
                    file.flush()
                except BaseException:
                    let_go()
                    raise
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # HDF5 could not close the file either
                raise error.__context__ from None
            raise
        with ThreadPoolExecutor(1) as pool:  # sync and digest at the same time
            written = pool.submit(sync, temporary)
            digest = file_digest(temporary, SEAL)
            written.result()
        with temporary.open("r+b") as sealed:
            sealed.write(_seal(digest))
    _remember(path)


def _new_file(path: Path) -> h5py.File:
    return h5py.File(path, "w", libver=("v108", "v108"), userblock_size=SEAL, locking=False)


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
    """The digest that the file states; None if it has no seal."""
    with path.open("rb") as file:
        start = file.read(SEAL)
    digest = start.partition(b"bytes: ")[2][:64].decode("ascii", "replace")
    return digest if start == _seal(digest) else None


class _Dataset(h5py.Dataset):  # type: ignore[misc] # h5py has no types
    """A dataset that says of which file it is if it cannot be read.

    The caller may be writing another file, and would take an OSError for an error of that one.
    """

    def __init__(self, bound: h5py.h5d.DatasetID, name: str, remedy: str) -> None:
        super().__init__(bound)
        self._where, self._remedy = name, remedy

    def __getitem__(self, rows: Any, new_dtype: Any = None) -> Any:
        with self._read():
            return super().__getitem__(rows, new_dtype)

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
    """A checked HDF5 artefact, open for reading. Index it by dataset name: `artefact["label"][:]`."""

    def __init__(self, path: Path, file: h5py.File, digest: str, remedy: str) -> None:
        self.path = path
        self.file = file
        self._remedy = remedy
        params, made_from = json.loads(file.attrs["params"]), json.loads(file.attrs["made_from"])
        self.provenance = Provenance.checked(params, made_from, digest)

    def __getitem__(self, name: str) -> h5py.Dataset:
        found = self.file[name]
        if not isinstance(found, h5py.Dataset):  # the group of previews
            return found
        return _Dataset(found.id, f"{self.path}: dataset '{name}'", self._remedy)

    def __contains__(self, name: str) -> bool:
        return name in self.file

    @property
    def digest(self) -> str:
        return self.provenance.digest

    def attribute(self, name: str) -> Any:
        """A root attribute that was given to `create`."""
        return json.loads(self.file.attrs[name])

    def rows(self, name: str, rows: NDArray[np.integer]) -> NDArray[Any]:
        """The given rows of a dataset, in the given order. Repeats are allowed; each row is read once."""
        dataset = self[name]
        unique, inverse = np.unique(rows, return_inverse=True)
        values = np.empty((len(unique), *dataset.shape[1:]), dataset.dtype)
        # Neighbouring rows are read as slices: h5py's own indexing by lists is far slower.
        breaks = np.flatnonzero(np.diff(unique) != 1) + 1
        for run in np.split(np.arange(len(unique)), breaks):
            if len(run):
                here = np.s_[run[0] : run[-1] + 1]
                there = np.s_[unique[run[0]] : unique[run[-1]] + 1]
                dataset.read_direct(values, there, here)
        return values[inverse]


@contextmanager
def open_artefact(
    path: Path, kind: str, schema: Schema, remedy: str, digest: str | None = None
) -> Iterator[Artefact]:
    """Open an HDF5 artefact and check it.

    Its layout is checked every time; its contents only if the file is new or has changed.

    Args:
        kind: its name, such as `images`.
        schema: the datasets that it must have.
        remedy: what to do when something is wrong, such as `run 'mac prepare'`.
        digest: the digest that it must have.

    Raises:
        MacError: it is missing, no artefact, truncated, damaged, incomplete, of another kind or version,
            or open for writing elsewhere; or a dataset is missing or has the wrong shape. One line names
            file, dataset and remedy.
    """
    if not path.is_file():
        raise MacError(f"{path}: no such file; {remedy}")
    try:
        sealed = stated_digest(path)
        if sealed is None:
            raise MacError(f"{path}: is no MaC artefact, or damaged; {remedy}")
        if not _is_remembered(path):
            if file_digest(path, SEAL) != sealed:
                if _is_open_for_writing(path):
                    raise BlockingIOError
                raise MacError(
                    f"{path}: truncated or damaged, its contents are not what was written; {remedy}"
                )
            _remember(path)
        file = _to_read(path)
    except BlockingIOError:  # from HDF5 too, if the environment makes it lock files
        raise MacError(f"{path}: another program has it open for writing; close it there first") from None
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from None
    with file:
        try:
            _check(path, kind, schema, file, remedy)
            artefact = Artefact(path, file, sealed, remedy)
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
        sealed = stated_digest(path)
        if sealed is None or (not _is_remembered(path) and file_digest(path, SEAL) != sealed):
            return None
        with _to_read(path) as file:
            return str(file.attrs["schema"])
    except _BROKEN:
        return None


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def _remember(path: Path) -> None:
    """Note beside the file that its contents are checked. They are read again only if it changes."""
    with suppress(OSError):  # without the note, the contents are read every time
        _note(path).write_text(_state(path))


def _is_remembered(path: Path) -> bool:
    try:
        return _note(path).read_text() == _state(path)
    except (OSError, UnicodeDecodeError):
        return False


def _check(path: Path, kind: str, schema: Schema, file: h5py.File, remedy: str) -> None:
    found = file.attrs.get("schema")
    if found != kind:
        raise MacError(f"{path}: holds '{found or 'no MaC artefact'}', expected {kind}; {remedy}")
    if file.attrs.get("version") != VERSION:
        version = file.attrs.get("version")
        raise MacError(f"{path}: schema version {version}, this program reads {VERSION}; {remedy}")
    if not file.attrs.get("complete", False):
        raise MacError(f"{path}: incomplete; {remedy}")
    lengths: dict[str, int] = {}
    for name, field in schema.items():
        if name in file:
            _check_dataset(path, name, field, file[name], lengths, remedy)
        elif not field.optional:
            raise MacError(f"{path}: dataset '{name}' is missing; {remedy}")


def _check_dataset(
    path: Path, name: str, field: Field, dataset: object, lengths: dict[str, int], remedy: str
) -> None:
    """`lengths` has the lengths of the axes that were seen so far, by name."""
    if not isinstance(dataset, h5py.Dataset):
        raise MacError(f"{path}: '{name}' is not a dataset; {remedy}")
    if dataset.is_virtual or dataset.external or Path(dataset.file.filename) != path:
        raise MacError(f"{path}: dataset '{name}' is in another file; {remedy}")
    is_right = dataset.dtype.kind == "S" if field.dtype == "utf-8" else dataset.dtype == np.dtype(field.dtype)
    if not is_right or dataset.ndim != len(field.dims):
        found = f"{dataset.dtype} {dataset.shape}"
        raise MacError(f"{path}: dataset '{name}' is {found}, expected {field.dtype} {field.dims}; {remedy}")
    for dim, length in zip(field.dims, dataset.shape, strict=True):
        expected = dim if isinstance(dim, int) else lengths.setdefault(dim, length)
        if length != expected:
            raise MacError(
                f"{path}: dataset '{name}' has {length} along '{dim}', expected {expected}; {remedy}"
            )
    _bound(path, name, dataset, remedy)


def _bound(path: Path, name: str, dataset: h5py.Dataset, remedy: str) -> None:
    """Refuse a dataset that claims to be larger than its file can hold, before memory is allocated for it."""
    most = path.stat().st_size * (_DEFLATE if dataset.compression else 1)
    too_large = dataset.nbytes > most
    if dataset.chunks:
        chunk, whole = (np.prod(shape[1:], dtype=object) for shape in (dataset.chunks, dataset.shape))
        too_large = too_large or chunk > whole
    if too_large:
        raise MacError(
            f"{path}: dataset '{name}' says that it has {dataset.nbytes} bytes, more than the file can hold; "
            f"{remedy}"
        )
    if dataset.chunks and dataset.chunks[0] != 1:
        raise MacError(
            f"{path}: dataset '{name}' has chunks of {dataset.chunks[0]} rows, expected 1; {remedy}"
        )


_DEFLATE = 1100  # the most bytes that gzip can pack into one, rounded up
