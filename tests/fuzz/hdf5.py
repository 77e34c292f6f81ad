"""Changes of HDF5: values, types, shapes, storage, links and attributes."""

import json
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import store
from pipeline.store import seal
from tests.fuzz.changes import mutate_json, mutate_text


def _odd_type(rng: random.Random) -> Any:
    pair = np.dtype([("a", np.int64), ("b", np.float32)])
    numbers = [np.int8, np.int16, np.int32, np.uint8, np.uint64, np.float16, np.float32, np.float64]
    others = [np.complex64, np.bool_, np.dtype(">i8"), np.dtype(">f4"), np.dtype("S10"), h5py.string_dtype()]
    references = [h5py.ref_dtype, h5py.regionref_dtype, h5py.vlen_dtype(np.int32), h5py.opaque_dtype("M8[s]")]
    enum = h5py.enum_dtype({"A": 0, "B": 7}, np.int8)
    return rng.choice([*numbers, *others, *references, pair, enum, np.dtype((np.int64, (2,)))])


def _datasets(file: h5py.File) -> list[str]:
    """The names of the datasets, without those that an earlier change has made unreadable here."""
    found: list[str] = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and (item.size or 0) < 10**7 and not item.external:
            found.append(name)

    file.visititems(visit)
    return found


def _put(file: h5py.File, name: str, *arguments: Any, **options: Any) -> None:
    """A dataset in place of another one."""
    if name in file:
        del file[name]
    file.create_dataset(name, *arguments, **options)


def _values(file: h5py.File, name: str, rng: random.Random) -> None:
    dataset = file[name]
    values = dataset[()]
    if not values.size or values.dtype.kind == "V":
        return
    if dataset.dtype == np.bool_:
        stored = values.view(np.uint8)
        stored.reshape(-1)[rng.randrange(values.size)] = rng.choice([2, 7, 255, 0, 1])
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, stored, dataset.id.get_type())
        return
    flat = values.reshape(-1)
    if values.dtype.kind == "S":
        odd: list[Any] = [b"", b"\xff\xfe", b"../../etc/passwd", b"a\nb", b"\x1b[31m", b"=1"]
    elif values.dtype.kind == "f":
        odd = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1.0, 2.0]
    else:
        info = np.iinfo(values.dtype)
        odd = [info.min, info.max, 0, 1, 2, 3, 5, 40, info.max // 2, *([-1, -2] if info.min else [])]
    value, count = rng.choice(odd), rng.choice([1, 1, 3, values.size])
    for _ in range(min(count, 40)):
        flat[rng.randrange(values.size)] = value
    if count == values.size:
        flat[:] = value
    if rng.random() < 0.2:
        rng.shuffle(flat)
    dataset[...] = values


def _type(file: h5py.File, name: str, rng: random.Random) -> None:
    shape = file[name].shape
    _put(file, name, shape, _odd_type(rng))


def _shape(file: h5py.File, name: str, rng: random.Random) -> None:
    values, dtype = file[name][()], file[name].dtype
    how = rng.randrange(9)
    if how == 0:
        _put(file, name, data=values[: len(values) // 2], dtype=dtype)
    elif how == 1:
        _put(file, name, data=np.concatenate([values, values]), dtype=dtype)
    elif how == 2:
        _put(file, name, data=values[..., None], dtype=dtype)
    elif how == 3:
        _put(file, name, data=values[:0], dtype=dtype)
    elif how == 4:
        _put(file, name, data=h5py.Empty(dtype))
    elif how == 5:
        _put(file, name, (2**40, *values.shape[1:]), dtype, chunks=(1, *values.shape[1:]), compression="gzip")
    elif how == 6:
        _put(file, name, values.shape[:1], dtype)
    elif how == 7:
        large = (len(values), *(50 * n for n in values.shape[1:]))
        _put(file, name, large, dtype, chunks=(1, *large[1:]), compression="gzip", fillvalue=None)
    else:
        _put(file, name, (10**12, *values.shape[1:]), dtype)


def _stored(file: h5py.File, name: str, rng: random.Random) -> None:
    values, dtype = file[name][()], file[name].dtype
    how = rng.randrange(8)
    if how == 0:
        chunks = tuple(rng.randint(1, n + 1) for n in values.shape)
        _put(file, name, data=values, dtype=dtype, chunks=chunks, maxshape=(None,) * values.ndim)
    elif how == 1:
        filters: list[dict[str, Any]] = [{"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True}]
        filters.append({"compression": "gzip"})
        _put(file, name, data=values, dtype=dtype, chunks=True, **rng.choice(filters))
    elif how == 2:  # a filter that nobody knows
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(tuple(max(n, 1) for n in values.shape))
        plist.set_filter(32_768 + rng.randrange(9), h5py.h5z.FLAG_OPTIONAL, (1, 2))
        _low_level(file, name, plist, values.shape, dtype)
    elif how == 3:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        _low_level(file, name, plist, (1,) * values.ndim, dtype)
    elif how == 4:  # what it holds lies in another file
        outside = Path(file.filename).parent.parent / rng.choice(["secret", "pipe", "missing"])
        _put(file, name, values.shape, dtype, external=[(str(outside), 0, h5py.h5f.UNLIMITED)])
    elif how == 5:
        layout = h5py.VirtualLayout(values.shape, dtype)
        source = rng.choice([str(Path(file.filename).parent.parent / "other.h5"), "."])
        layout[...] = h5py.VirtualSource(source, "d", values.shape, dtype)
        del file[name]
        file.create_virtual_dataset(name, layout)
    elif how == 6:
        committed = f"type{rng.randrange(10**6)}"
        file[committed] = dtype
        _put(file, name, data=values, dtype=file[committed])
    else:
        _put(file, name, values.shape, dtype, chunks=tuple(max(n, 1) for n in values.shape))


def _low_level(file: h5py.File, name: str, plist: Any, shape: tuple[int, ...], dtype: Any) -> None:
    del file[name]
    space, links = h5py.h5s.create_simple(shape), h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    kind = h5py.h5t.py_create(dtype, logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, space, plist, links)


def _links(file: h5py.File, name: str, rng: random.Random) -> None:
    folder = Path(file.filename).parent.parent
    outside = h5py.ExternalLink(str(folder / rng.choice(["other.h5", "pipe", "missing.h5"])), f"/{name}")
    others = [other for other in _datasets(file) if other != name]
    group, _, _ = name.rpartition("/")
    how = rng.randrange(10)
    if how == 0:
        file.move(name, f"{name}_")
    elif how == 1:
        del file[name]
    elif how == 2:
        file.move(name, "there")
        file[name] = h5py.SoftLink(rng.choice(["/there", f"/{name}", "/missing", "/"]))
    elif how == 3:
        del file[name]
        file[name] = outside
    elif how == 4:
        del file[name]
        file["ext"] = h5py.ExternalLink(outside.filename, "/")
        file[name] = h5py.SoftLink(f"/ext/{name}")
    elif how == 5 and group:
        del file[group]
        file[group] = h5py.ExternalLink(outside.filename, f"/{group}")
    elif how == 6 and others:
        del file[name]
        file[name] = file[rng.choice(others)]
    elif how == 7:
        del file[name]
        file[name] = file["/"] if rng.random() < 0.5 else file.create_group("g")
    elif how == 8:
        preview = file.require_group("preview")
        preview["cycle"] = file["/"]
        preview["picture"] = outside
        preview["soft"] = h5py.SoftLink("/preview/soft")
    else:
        if "preview" in file:
            del file["preview"]
        file["preview"] = rng.choice([outside, h5py.SoftLink(f"/{name}"), file[name]])


def _attributes(file: h5py.File, name: str, rng: random.Random) -> None:
    where = file if rng.random() < 0.6 else file[name]
    key = rng.choice(
        ["params", "made_from", "classes", "attributes", "coverage", "schema", "version", "complete"]
    )
    if where is not file:
        key = rng.choice(["about", "DIMENSION_LABELS", "DIMENSION_LIST", "CLASS", "_Netcdf4Dimid"])
    odd: list[Any] = [1, -1, 2.5, np.nan, b"bytes", b"\xff", "", "x", h5py.Empty("f"), h5py.Empty("S1")]
    odd += [
        np.arange(3),
        np.array([b"a", b"b"], "S1"),
        True,
        file.ref,
        np.zeros(0),
        "x" * 100_000,
        np.bytes_(b"{}"),
    ]
    odd += [
        np.zeros((2, 2), np.int64),
        np.zeros(1, [("a", "i4")]),
        '{"a": 1}',
        '["a"]',
        "null",
        "NaN",
        "[" * 9999,
    ]
    if where is file and rng.random() < 0.2:
        where.attrs.pop(key, None)
    else:
        where.attrs[key] = rng.choice(odd)


def _said(file: h5py.File, name: str, rng: random.Random) -> None:
    """Change what the JSON of a root attribute says."""
    key = rng.choice([key for key in ("params", "classes", "attributes", "coverage") if key in file.attrs])
    value = {"it": json.loads(file.attrs[key])}
    mutate_json(value, rng)
    said = json.dumps(value.get("it", value))
    file.attrs[key] = mutate_text(said, rng)[:60_000] if rng.random() < 0.1 else said


_HDF5 = (_values, _values, _values, _type, _shape, _stored, _links, _attributes, _said)


def mutate_hdf5(path: Path, rng: random.Random) -> str:
    how = "nothing"
    for _ in range(rng.choice([1, 1, 1, 2])):
        try:
            with h5py.File(path, "r+") as file:
                change = rng.choice(_HDF5)
                how = change.__name__
                change(file, rng.choice(_datasets(file)), rng)
        except (ValueError, TypeError, KeyError, OSError, RuntimeError, OverflowError, IndexError):
            continue  # HDF5 or NumPy cannot make it
    with path.open("r+b") as whole:
        whole.write(seal.seal(store.file_digest(path, seal.SEAL)))
    return how
