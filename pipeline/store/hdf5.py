"""HDF5 artefacts: written by `create` with the datasets of SCHEMAS, opened by `open_artefact`, which checks them."""

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
from pipeline.store.provenance import MADE_BY, VERSION, Provenance, file_digest
from pipeline.store.schemas import SCHEMAS, Field

SEAL = 512  # bytes of the HDF5 user block


class Writer:
    """An HDF5 artefact in the making; `file` is open for further groups (previews)."""

    def __init__(self, file: h5py.File, kind: str) -> None:
        self.file = file
        self._fields = SCHEMAS[kind]

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
def create(path: Path, kind: str, params: Mapping[str, Any], made_from: Mapping[str, str], **attributes: Any) -> Iterator[Writer]:
    """Write an HDF5 artefact: under a temporary name, then renamed when the block ends without an exception.

    Args:
        attributes: further root attributes (class names and the like), JSON-able.

    Raises:
        MacError: the folder cannot be written, or the disk is full; what was at `path` is untouched.
    """
    with replacing(path) as temporary:
        try:
            with ballast(temporary) as let_go, h5py.File(temporary, "w", libver=("v108", "v108"), userblock_size=SEAL) as file:
                try:
                    file.attrs["schema"] = kind
                    file.attrs["version"] = VERSION
                    file.attrs["params"] = json.dumps(params, sort_keys=True)
                    file.attrs["made_from"] = json.dumps(made_from, sort_keys=True)
                    for name, value in attributes.items():
                        file.attrs[name] = json.dumps(value, ensure_ascii=False)
                    yield Writer(file, kind)
                    file.attrs["complete"] = True
                    file.flush()
                except BaseException:
                    let_go()
                    raise
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # HDF5 could not even close the file
                raise error.__context__ from None
            raise
        with ThreadPoolExecutor(1) as pool:  # the disk takes the bytes while they are summed up
            written = pool.submit(sync, temporary)
            digest = file_digest(temporary, SEAL)
            written.result()
        with temporary.open("r+b") as sealed:
            sealed.write(_seal(digest))
    _remember(path)


def _seal(digest: str) -> bytes:
    """What stands before the HDF5 data, in its user block: the digest of all that follows.

    HDF5 itself does not notice a flipped bit in the data, and can run in circles over one in its structure. So the bytes are checked
    before it looks at them.
    """
    return f"MaC artefact; sha256 of what follows these {SEAL} bytes: {digest}\n".encode().ljust(SEAL, b"\0")


def _sealed(path: Path) -> str | None:
    """The digest that the file says it has; None if it has no seal."""
    with path.open("rb") as file:
        start = file.read(SEAL)
    digest = start.partition(b"bytes: ")[2][:64].decode("ascii", "replace")
    return digest if start == _seal(digest) else None


class Artefact:
    """An HDF5 artefact open for reading, checked. Index it by dataset name: `artefact["label"][:]`."""

    def __init__(self, path: Path, kind: str, file: h5py.File, digest: str) -> None:
        self.path = path
        self.kind = kind
        self.file = file
        self.provenance = Provenance(json.loads(file.attrs["params"]), json.loads(file.attrs["made_from"]), digest)

    def __getitem__(self, name: str) -> h5py.Dataset:
        return self.file[name]

    def __contains__(self, name: str) -> bool:
        return name in self.file

    @property
    def digest(self) -> str:
        return self.provenance.digest

    def attribute(self, name: str) -> Any:
        """A root attribute given to `create`."""
        return json.loads(self.file.attrs[name])

    def rows(self, name: str, rows: NDArray[np.integer]) -> NDArray[Any]:
        """The given rows of a dataset in the given order, repeats allowed; each is read once."""
        dataset = self.file[name]
        unique, inverse = np.unique(rows, return_inverse=True)
        values = np.empty((len(unique), *dataset.shape[1:]), dataset.dtype)
        # Runs of neighbours are read as slices: h5py's own fancy indexing is far slower.
        breaks = np.flatnonzero(np.diff(unique) != 1) + 1
        for run in np.split(np.arange(len(unique)), breaks):
            if len(run):
                dataset.read_direct(values, np.s_[unique[run[0]] : unique[run[-1]] + 1], np.s_[run[0] : run[-1] + 1])
        return values[inverse]


@contextmanager
def open_artefact(
    path: Path, kind: str | None = None, made_from: Mapping[str, str] | None = None, digest: str | None = None
) -> Iterator[Artefact]:
    """Open an HDF5 artefact, checked: its layout, and, where the file is new or has changed since it was last opened, its contents.

    Args:
        kind: the expected schema; None takes any.
        made_from: digests that it must have been made from.
        digest: the digest that it must have.

    Raises:
        MacError: missing, no artefact, truncated, damaged, of another schema or version, incomplete, with a missing or misshapen
            dataset, or made from something else. One line that names file, dataset and remedy.
    """
    remedy = f"run 'mac {MADE_BY[kind]}'" if kind else "see 'mac --help'"
    if not path.is_file():
        raise MacError(f"{path}: no such file; {remedy}")
    try:
        sealed = _sealed(path)
        if sealed is None:
            raise MacError(f"{path}: is no MaC artefact, or damaged; {remedy}")
        if not _is_remembered(path):
            if file_digest(path, SEAL) != sealed:
                raise MacError(f"{path}: truncated or damaged, its contents are not what was written; {remedy}")
            _remember(path)
        file = h5py.File(path, "r")
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from None
    with file:
        try:
            artefact = _checked(path, kind, file, sealed, remedy)
        except _BROKEN as error:
            raise MacError(f"{path}: damaged ({type(error).__name__}: {first_line(error)}); {remedy}") from None
        if digest is not None and artefact.digest != digest:
            raise MacError(f"{path}: was replaced while it was in use; run the same command again")
        if made_from:
            artefact.provenance.require(artefact.kind, path, made_from)
        try:
            yield artefact
        except OSError as error:
            if "HDF5" in str(error) or "synchronously" in str(error):
                raise MacError(f"{path}: damaged, its data cannot be read ({first_line(error)}); {remedy}") from error
            raise


# What h5py raises for a file whose structure is damaged, besides OSError.
_BROKEN = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, MemoryError)


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def _remember(path: Path) -> None:
    """Note beside the file that its contents are right as it is now, so that they are not read through again."""
    with suppress(OSError):  # a folder that cannot be written to: then they are
        _note(path).write_text(_state(path))


def _is_remembered(path: Path) -> bool:
    try:
        return _note(path).read_text() == _state(path)
    except (OSError, UnicodeDecodeError):
        return False


def _checked(path: Path, kind: str | None, file: h5py.File, digest: str, remedy: str) -> Artefact:
    found = file.attrs.get("schema")
    if not isinstance(found, str) or found not in SCHEMAS or (kind and found != kind):
        raise MacError(f"{path}: holds '{found or 'no MaC artefact'}', expected {kind or 'one of ' + ', '.join(SCHEMAS)}; {remedy}")
    if file.attrs.get("version") != VERSION:
        raise MacError(f"{path}: schema version {file.attrs.get('version')}, this program reads {VERSION}; {remedy}")
    if not file.attrs.get("complete", False):
        raise MacError(f"{path}: incomplete; {remedy}")
    lengths: dict[str, int] = {}
    for name, field in SCHEMAS[found].items():
        if name not in file:
            if field.optional:
                continue
            raise MacError(f"{path}: dataset '{name}' is missing; {remedy}")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise MacError(f"{path}: '{name}' is not a dataset; {remedy}")
        is_right = dataset.dtype.kind == "S" if field.dtype == "utf-8" else dataset.dtype == np.dtype(field.dtype)
        if not is_right or dataset.ndim != len(field.dims):
            raise MacError(f"{path}: dataset '{name}' is {dataset.dtype} {dataset.shape}, expected {field.dtype} {field.dims}; {remedy}")
        for dim, length in zip(field.dims, dataset.shape, strict=True):
            expected = dim if isinstance(dim, int) else lengths.setdefault(dim, length)
            if length != expected:
                raise MacError(f"{path}: dataset '{name}' has {length} along '{dim}', expected {expected}; {remedy}")
        _bound(path, name, dataset, remedy)
    return Artefact(path, str(found), file, digest)


def _bound(path: Path, name: str, dataset: h5py.Dataset, remedy: str) -> None:
    """Refuse a dataset that says it is larger than its file can hold, before memory is taken for it."""
    most = path.stat().st_size * (_DEFLATE if dataset.compression else 1)
    if dataset.nbytes > most or (dataset.chunks and np.prod(dataset.chunks[1:], dtype=object) > np.prod(dataset.shape[1:], dtype=object)):
        raise MacError(f"{path}: dataset '{name}' says that it has {dataset.nbytes} bytes, more than the file can hold; {remedy}")
    if dataset.chunks and dataset.chunks[0] != 1:
        raise MacError(f"{path}: dataset '{name}' has chunks of {dataset.chunks[0]} rows, expected 1; {remedy}")


_DEFLATE = 1100  # the most that gzip makes of a byte, rounded up
