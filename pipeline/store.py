"""Artefacts on disk: what is in each, how one is written whole or not at all, and how one is opened with suspicion.

Two forms, with the same provenance (`Provenance`):

- an HDF5 file (`images`, `masks`, `features`): datasets as listed in SCHEMAS;
- a model folder (`erm`, `retrained`): model.safetensors with the tensors, and model.json that says how to build it.

Both are written under a temporary name, synced, then renamed; nothing of time, host or revision goes in, so the same
inputs give the same bytes.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pipeline.errors import MacError

VERSION = 1
SPLITS = ("train", "val", "test")  # in the order of the codes 0, 1, 2


@dataclass(frozen=True)
class Field:
    """A dataset of an HDF5 artefact.

    Attributes:
        dtype: NumPy dtype, or `utf-8` for strings.
        dims: names of the axes; within one file axes of one name have one length. A number is an axis of that length.
        about: one line for the reader.
        layout: `contiguous`; `rows`, one chunk per row; `gzip`, the same compressed.
        optional: may be absent.
    """

    dtype: str
    dims: tuple[str | int, ...]
    about: str
    layout: str = "contiguous"
    optional: bool = False


def _split_fields(split: str) -> dict[str, Field]:
    return {
        f"{split}/original": Field("float32", (f"{split} row", "feature"), "φ(x) of the original images"),
        f"{split}/label": Field("int64", (f"{split} row",), "class"),
        f"{split}/attribute": Field("int64", (f"{split} row",), "spurious attribute"),
        f"{split}/row": Field("int64", (f"{split} row",), "row in images.h5"),
    }


SCHEMAS: dict[str, dict[str, Field]] = {
    "images": {
        "image": Field("uint8", ("row", "height", "width", 3), "RGB at the stored size", "rows"),
        "label": Field("int64", ("row",), "class, index into the attribute `classes`"),
        "attribute": Field("int64", ("row",), "spurious attribute, index into the attribute `attributes`"),
        "split": Field("int8", ("row",), "0 train, 1 val, 2 test"),
        "path": Field("utf-8", ("row",), "file, relative to the dataset's folder"),
        "channel_mean": Field("float32", ("row", 3), "mean colour over the input grid, in [0, 1]"),
        "foreground": Field("bool", ("row", "height", "width"), "true mask at the stored size", "gzip", optional=True),
        "has_foreground": Field("bool", ("row",), "whether `foreground` is known for the row", optional=True),
    },
    "masks": {
        "row": Field("int64", ("sample",), "row in images.h5"),
        "target": Field("int64", ("sample",), "class that the map explains"),
        "mask": Field("bool", ("sample", "height", "width"), "core pixels on the input grid", "gzip"),
        "cam": Field("float32", ("sample", "map height", "map width"), "raw map, neither rectified nor upsampled"),
    },
    "features": {
        **_split_fields("train"),
        "train/masked": Field("float32", ("draw", "train row", "feature"), "φ of equation 1"),
        "train/combined": Field("float32", ("draw", "train row", "feature"), "φ of equation 2"),
        "train/partner": Field("int32", ("draw", "train row"), "partner j, position in train/"),
        "train/batch": Field("int32", ("draw", "train row"), "batch of the draw that the row is in"),
        "train/fill": Field("float32", ("draw", "train row", 3), "fill b, in [0, 1]"),
        **_split_fields("val"),
        **_split_fields("test"),
    },
}

# Which command makes which artefact: every error names the remedy.
MADE_BY = {"images": "prepare", "erm": "train", "masks": "saliency", "features": "features", "retrained": "retrain"}


@dataclass(frozen=True)
class Provenance:
    """What an artefact was made with and from.

    Attributes:
        params: the parameters that shaped it.
        made_from: digest of each artefact (or file) that it was computed from.
        digest: sha256 of its own contents.
    """

    params: Mapping[str, Any]
    made_from: Mapping[str, str]
    digest: str

    def require(self, kind: str, path: Path, made_from: Mapping[str, str]) -> None:
        """Raise MacError unless the artefact was made from exactly these digests."""
        for source, digest in made_from.items():
            found = self.made_from.get(source, "none")
            if found != digest:
                raise MacError(
                    f"{path}: was made from other {source} (digest {found[:12]}) than those here (digest {digest[:12]}); "
                    f"run 'mac {MADE_BY[kind]}' again"
                )


def digest_of(*parts: object) -> str:
    """sha256 of JSON-able values, as hex: the fingerprint of a computation."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what the block writes there takes the place of `path` if the block ends well.

    Raises:
        MacError: the folder cannot be written, or the disk is full; what was at `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        _remove(temporary)
        if "read data" in str(error):  # HDF5, of a file that the block reads
            raise
        raise MacError(f"{path}: cannot be written ({_first_line(error)})") from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


# --- HDF5 artefacts ----------------------------------------------------------------------------------------------------


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
    with replacing(path) as temporary, h5py.File(temporary, "w", libver=("v108", "v108")) as file:
        file.attrs["schema"] = kind
        file.attrs["version"] = VERSION
        file.attrs["params"] = json.dumps(params, sort_keys=True)
        file.attrs["made_from"] = json.dumps(made_from, sort_keys=True)
        for name, value in attributes.items():
            file.attrs[name] = json.dumps(value, ensure_ascii=False)
        yield Writer(file, kind)
        file.attrs["digest"] = _content_digest(file, kind)
        file.attrs["complete"] = True


def _content_digest(file: h5py.File, kind: str) -> str:
    """sha256 over the schema's datasets (name, shape, bytes) and the root attributes, in schema order."""
    digest = hashlib.sha256()
    for name in sorted(file.attrs):
        digest.update(f"{name}={file.attrs[name]}\n".encode())
    for name in SCHEMAS[kind]:
        if name not in file:
            continue
        dataset = file[name]
        digest.update(f"{name} {dataset.dtype.str} {dataset.shape}\n".encode())
        block = max(1, (16 << 20) // max(1, dataset.nbytes // max(1, len(dataset))))
        for start in range(0, len(dataset), block):
            digest.update(np.ascontiguousarray(dataset[start : start + block]).data)
    return digest.hexdigest()


class Artefact:
    """An HDF5 artefact open for reading, checked. Index it by dataset name: `artefact["label"][:]`."""

    def __init__(self, path: Path, kind: str, file: h5py.File) -> None:
        self.path = path
        self.kind = kind
        self.file = file
        self.provenance = Provenance(json.loads(file.attrs["params"]), json.loads(file.attrs["made_from"]), str(file.attrs["digest"]))

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
def open_artefact(path: Path, kind: str | None = None, made_from: Mapping[str, str] | None = None) -> Iterator[Artefact]:
    """Open an HDF5 artefact and check all that can be checked without reading its data.

    Args:
        kind: the expected schema; None takes any.
        made_from: digests that it must have been made from.

    Raises:
        MacError: missing, not HDF5, truncated, of another schema or version, incomplete, with a missing or misshapen
            dataset, or made from something else. One line that names file, dataset and remedy.
    """
    remedy = f"run 'mac {MADE_BY[kind]}'" if kind else "see 'mac --help'"
    if not path.is_file():
        raise MacError(f"{path}: no such file; {remedy}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise MacError(f"{path}: cannot be read as HDF5 ({_first_line(error)}); {remedy}") from None
    with file:
        artefact = _checked(path, kind, file, remedy)
        if made_from:
            artefact.provenance.require(artefact.kind, path, made_from)
        try:
            yield artefact
        except OSError as error:
            if "HDF5" in str(error) or "synchronously" in str(error):
                raise MacError(f"{path}: damaged, its data cannot be read ({_first_line(error)}); {remedy}") from error
            raise


def _checked(path: Path, kind: str | None, file: h5py.File, remedy: str) -> Artefact:
    found = file.attrs.get("schema")
    if found not in SCHEMAS or (kind and found != kind):
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
        is_right = dataset.dtype.kind == "S" if field.dtype == "utf-8" else dataset.dtype == np.dtype(field.dtype)
        if not is_right or dataset.ndim != len(field.dims):
            raise MacError(f"{path}: dataset '{name}' is {dataset.dtype} {dataset.shape}, expected {field.dtype} {field.dims}; {remedy}")
        for dim, length in zip(field.dims, dataset.shape, strict=True):
            expected = dim if isinstance(dim, int) else lengths.setdefault(dim, length)
            if length != expected:
                raise MacError(f"{path}: dataset '{name}' has {length} along '{dim}', expected {expected}; {remedy}")
    return Artefact(path, str(found), file)


# --- model folders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Attributes:
        spec: how to build it: architecture, classes, input, normalisation.
        tensors: path of the .safetensors file with the state dict of `pipeline.backbone.Classifier`.
    """

    path: Path
    spec: Mapping[str, Any]
    provenance: Provenance

    @property
    def tensors(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def digest(self) -> str:
        return self.provenance.digest

    def read(self, name: str = "model") -> dict[str, NDArray[Any]]:
        """All tensors of `<name>.safetensors`, as NumPy arrays."""
        return load_file(self.path / f"{name}.safetensors")

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The head's weight (classes, D) and bias (classes,)."""
        with safe_open(self.tensors, "numpy") as file:
            return file.get_tensor("head.weight"), file.get_tensor("head.bias")


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """Fill a folder: the block writes into a temporary one, which takes the place of `path` when it ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise MacError(f"{path}: cannot be written ({_first_line(error)})") from error
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        replaced = temporary.with_suffix(".old")
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise MacError(f"{path}: cannot be written ({_first_line(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_model(
    folder: Path,
    kind: str,
    tensors: Mapping[str, NDArray[Any]],
    spec: Mapping[str, Any],
    params: Mapping[str, Any],
    made_from: Mapping[str, str],
    **others: Mapping[str, NDArray[Any]],
) -> None:
    """Write model.safetensors and model.json into `folder` (one under construction, from `create_folder`).

    Args:
        others: further sets of tensors, each written to `<name>.safetensors`.
    """
    digests = {}
    for name, values in {"model": tensors, **others}.items():
        path = folder / f"{name}.safetensors"
        save_file({key: np.asarray(value, order="C") for key, value in values.items()}, path)
        path.chmod(0o644)  # safetensors makes its files for the owner alone
        digests[path.name] = file_digest(path)
    about = {"schema": kind, "version": VERSION, "spec": spec, "params": params, "made_from": made_from}
    write_json(folder / "model.json", {**about, "digest": digests["model.safetensors"], "files": digests})


def open_model(path: Path, kind: str, made_from: Mapping[str, str] | None = None) -> ModelFolder:
    """Open a model folder and check that description and tensors belong together.

    Raises:
        MacError: missing, damaged, of another kind or version, or made from something else.
    """
    remedy = f"run 'mac {MADE_BY[kind]}'"
    description = path / "model.json"
    if not description.is_file():
        raise MacError(f"{description}: no such file; {remedy}")
    try:
        about = json.loads(description.read_text())
        provenance = Provenance(about["params"], about["made_from"], about["digest"])
        found, version, spec, digests = about["schema"], about["version"], about["spec"], dict(about["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise MacError(f"{description}: damaged ({type(error).__name__}: {_first_line(error)}); {remedy}") from None
    if found != kind or version != VERSION:
        raise MacError(f"{description}: holds '{found}' version {version}, expected '{kind}' version {VERSION}; {remedy}")
    for name in digests:
        file = path / Path(name).name
        if not file.is_file():
            raise MacError(f"{file}: no such file; {remedy}")
        if file_digest(file) != digests[name]:
            raise MacError(f"{file}: truncated or changed: its digest is not the one in model.json; {remedy}")
    provenance.require(kind, path, made_from or {})
    return ModelFolder(path, spec, provenance)


# --- small files -------------------------------------------------------------------------------------------------------


def write_json(path: Path, value: object) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys as CSV, whole or not at all."""
    lines = [",".join(rows[0])] + [",".join(str(value) for value in row.values()) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
