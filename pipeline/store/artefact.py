"""Opens an HDF5 artefact and checks it: its bytes, its structure, its values.

A file may come from anyone. So it is opened in one place, its structure is checked before any value is read,
and nothing is opened that the schema does not name. What is checked, and what is not, is in SECURITY.md.
"""

import fcntl
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError, first_line
from pipeline.spec import checked_names
from pipeline.store.encoded import BYTES, OFFSET, Pictures, require_webp
from pipeline.store.files import decoded
from pipeline.store.provenance import Provenance
from pipeline.store.schema import NAMES, Codes, Field, Orders, Schema
from pipeline.store.seal import sealed_digest
from pipeline.store.structure import dataset_of, link_of, require_kind, text_of
from pipeline.store.verified import digest_in, is_remembered, remember, state_of

_BLOCK = 16 << 20  # bytes of values that are checked at a time
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
        require_kind(kind, file)
        params, made_from = self.attribute("params"), self.attribute("made_from")
        self.provenance = Provenance.checked(params, made_from, digest)
        self.lengths: dict[str, int] = {}
        self._datasets: dict[str, h5py.Dataset] = {}
        for name, field in schema.items():
            found = dataset_of(file, name, field, self.lengths)
            if found is not None:
                self._datasets[name] = _Dataset(found, f"{path}: dataset '{name}'", remedy)
            elif not field.optional and not field.encoded:
                raise ValueError(f"dataset '{name}' is missing")
        for name, field in schema.items():
            if field.encoded:
                # its parts are no datasets of their own
                parts = [self._datasets.pop(f"{field.encoded}/{part}", None) for part in (BYTES, OFFSET)]
                if name not in self._datasets:
                    self._datasets[name] = self._pictures(name, *parts)
        self.names: dict[str, tuple[str, ...]] = {}
        numbered = {each.values.of for each in schema.values() if isinstance(each.values, Codes)}
        for name in numbered.intersection(NAMES):
            self.names[name] = checked_names(self.attribute(name), name)
            self.lengths[name] = len(self.names[name])
        if "classes" in self.names and not self.names["classes"]:
            raise ValueError("has no class")

    def _pictures(self, name: str, content: h5py.Dataset | None, offset: h5py.Dataset | None) -> Pictures:
        """A dataset that the file has encoded.

        Raises:
            ValueError: it has not, or not as the schema says. The offsets are checked every time, because
                whatever they say is read.
            MacError: Pillow cannot decode it.
        """
        field = self._schema[name]
        if content is None or offset is None:
            raise ValueError(f"dataset '{name}' is missing")
        require_webp()
        _require_values(
            f"{field.encoded}/{OFFSET}", self._schema[f"{field.encoded}/{OFFSET}"], offset, self.lengths
        )
        try:
            found = Pictures(content, offset[:], f"{self.path}: dataset '{name}'", self._remedy)
        except ValueError as error:
            raise ValueError(f"dataset '{name}': {error}") from None
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
        return decoded(text_of(self._file, name))

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
        offset = None if isinstance(dataset, Pictures) else dataset.id.get_offset()
        if offset is None:
            raise MacError(
                f"{self.path}: dataset '{name}' is in chunks or encoded, expected one piece; {self._remedy}"
            )
        return self._file.id.get_vfd_handle(), offset

    def about(self, name: str) -> str:
        """What a dataset holds, in one line."""
        return self._schema[name].about

    def axes(self, name: str) -> list[str]:
        """The names of a dataset's axes."""
        return list(self._schema[name].axes)

    def count_of_group(self, name: str) -> int | None:
        """How many members a group has, which the schema does not name; None if it is not there.

        They are not opened.
        """
        if link_of(self._file.id, name) != h5py.h5l.TYPE_HARD:
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
        state, sealed = state_of(path), sealed_digest(path)
        if sealed is None:
            raise MacError(f"{path}: is no MaC artefact, or damaged; {remedy}")
        is_known = is_remembered(path, state, schema)
        if not is_known and digest_in(path, state) != sealed:
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
                remember(path, schema, state)
        except ValueError as error:  # from here, or from h5py
            raise MacError(f"{path}: {first_line(error)}; {remedy}") from None
        except _BROKEN as error:
            raise MacError(
                f"{path}: damaged ({type(error).__name__}: {first_line(error)}); {remedy}"
            ) from None
        if digest is not None and artefact.digest != digest:
            raise MacError(f"{path}: was replaced while it was in use; run the same command again")
        yield artefact


def stated_kind(path: Path) -> str | None:
    """The kind that an HDF5 file states; None if it is no artefact, or damaged."""
    try:
        state, sealed = state_of(path), sealed_digest(path)
        if sealed is None or (not is_remembered(path, state) and digest_in(path, state) != sealed):
            return None
        with _to_read(path) as file:
            return text_of(file, "schema")
    except (MacError, *_BROKEN):
        return None


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
