"""The structure of an HDF5 file, checked before any value is read.

By HDF5's own functions: h5py's follow links and read labels unasked.
"""

import math

import h5py
import numpy as np

from pipeline.store.files import MOST_TEXT
from pipeline.store.provenance import VERSION
from pipeline.store.schema import Field

_DEFLATE = 1100  # the most bytes that gzip can pack into one, rounded up
_MOST_PER_ROW = 1 << 28  # bytes of a packed row: a mask of 16,384 × 16,384 pixels


def require_kind(kind: str, file: h5py.File) -> None:
    """Raise a ValueError unless the file says that it is of this kind, of this version, and complete."""
    found = text_of(file, "schema") if h5py.h5a.exists(file.id, b"schema") else "no MaC artefact"
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


def text_of(file: h5py.File, name: str) -> str:
    """A root attribute that is text.

    Raises:
        ValueError: it is missing, or no text, or too long.
    """
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


def link_of(group: h5py.h5g.GroupID, name: str) -> int | None:
    """The kind of a link in a group; None if it is not there."""
    key = name.encode()
    return group.links.get_info(key).type if group.links.exists(key) else None


def dataset_of(
    file: h5py.File, name: str, field: Field, lengths: dict[str, int]
) -> h5py.h5d.DatasetID | None:
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
        link = link_of(place, each)
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
