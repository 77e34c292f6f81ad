"""Artefacts that lie: changed in their structure or values, and sealed again, so that every digest fits.

    python -m tests.fuzz --count 2000 images erm

Each changed artefact is read by `mac inspect` and by another command that reads it, as someone would who was
given it. A command either succeeds, or refuses with one line and leaves nothing half written. Commands run in
a process of their own, so that one that crashes, hangs, or takes all memory is seen.

The artefacts are the made-up project's. None says what it was made from, so the others do not refuse it.
"""

import argparse
import csv
import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML
from safetensors.numpy import load_file, save_file

from pipeline import api, graph, params_file, store
from pipeline.errors import MacError
from pipeline.params.examples import ExamplesParams
from pipeline.params.study import StudyParams
from pipeline.project import Project
from pipeline.steps.examples import examples
from pipeline.store import models, seal
from pipeline.study import statistics
from stages.cli import main as mac
from tests import cached, conftest, made_up, runs

AS_IT_IS = -1  # the seed that changes nothing
SECRET = b"A secret of this machine.       " * 4096
HDF5 = ("images", "maps", "masks", "originals", "features", "examples")
MODELS = ("erm", "retrained", "baselines", "jtt", "masktune")
TABLES = ("sweep", "ablation")
ENCODED = "images_encoded"  # images.h5 whose images are encoded
KINDS = (*HDF5, ENCODED, *MODELS, *TABLES, "metrics", "run", "study")
# What reads each kind besides `mac inspect`.
OF_IMAGES = ("api_images", "diagnose", "browse", "evaluate", "report", "export", "features", "examples")
READERS = {
    "images": OF_IMAGES,
    ENCODED: (*OF_IMAGES, "grid", "saliency"),
    "maps": ("api_maps", "masks"),
    "masks": ("api_masks", "diagnose", "browse", "picture", "grid", "report", "explain", "features"),
    "originals": ("api_originals", "features"),
    "features": ("api_features", "diagnose", "browse", "evaluate", "report", "retrain", "sweep", "baselines"),
    "examples": ("report",),
    "erm": ("load", "predict", "explain", "diagnose", "evaluate", "report", "export", "retrain", "baselines"),
    "retrained": ("load", "predict", "explain", "browse", "evaluate", "report", "export"),
    "baselines": ("load_dfr", "predict_dfr", "explain_dfr", "evaluate", "report", "export_dfr", "export"),
    "jtt": ("load", "compare"),
    "masktune": ("load", "compare"),
    "sweep": ("retrain_auto", "report"),
    "ablation": ("compare",),
    "metrics": (),
    "run": ("study", "inspect_table"),
    "study": (),
}
# Those that take a tenth of a second.
APIS = tuple(f"api_{name}" for name in ("images", "maps", "masks", "originals", "features"))
QUICK = (*APIS, "diagnose", "browse", "load", "predict", "retrain_auto", "study", "inspect_table")
RUN = "base/1"  # the run of the study that is changed
OUT = "out"  # what the readers write, in the project's folder


# --- The project ------------------------------------------------------------------------------------------


def build(folder: Path) -> Project:
    """The made-up project with all that the reports read; no artefact says what it was made from."""
    project = made_up.write(folder, kept=[1])
    with project.open("images", "erm", "masks", "features") as given:
        params = ExamplesParams(training=2, mistakes=2, seed=0)
        examples(given, project.path("examples"), params, cached.context(project.data))
    made_up.write_compared(project)
    _write_params(folder)
    params = params_file.load(folder / "params.yaml")
    for seed in params.of(StudyParams).seeds:
        runs.write_run(project, seed, [params.of(model) for model in graph.stage("study").models()])
    _run("-q", "evaluate", "--data", str(project.data))
    _run("-q", "study", "--data", str(project.data), "--params", str(folder / "params.yaml"))
    for name in HDF5:
        with conftest.edited(project.path(name), sealed=True) as file:
            file.attrs["made_from"] = "{}"
    for name in (*MODELS, *TABLES):
        for file in project.path(name).glob("*.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "made_from": {}}))
        if name not in TABLES:
            reseal_model(project.path(name))
    _write_encoded(project)
    for timing in (project.data / "timings").glob("*"):
        timing.unlink()
    (folder / "secret").write_bytes(SECRET)
    return project


def _write_encoded(project: Project) -> None:
    """images.h5 with its images encoded, beside the data folder."""
    path = project.data.parent / "encoded.h5"
    path.write_bytes(project.path("images").read_bytes())
    with conftest.edited(path, sealed=True) as file:
        files = [store.encode(image) for image in file["image"]]
        del file["image"]
        file["encoded/bytes"] = np.frombuffer(b"".join(files), np.uint8)
        file["encoded/offset"] = np.cumsum([0, *map(len, files)])


def _write_params(folder: Path) -> None:
    yaml = YAML(typ="safe")
    yaml.dump(conftest.default_params(), folder / "params.yaml")
    conftest.Project(folder).set(
        retrain__seeds=1, retrain__average=1, retrain__epochs=1, retrain__alpha=1.0, retrain__beta=1.0,
        retrain__l2=0.0, sweep__seeds=1, sweep__average=1, sweep__alphas=[0], sweep__betas=[0, 1],
        baselines__methods=["llr", "dfr_l2", "class_scaling"], features__draws=1,
        dataset__stored_size=72, dataset__input_size=64, examples__training=2, examples__mistakes=2,
        study__seeds=[0, 1],
    )  # fmt: skip
    values = yaml.load(folder / "params.yaml")
    values["retrain"] |= {"alpha": "auto", "beta": "auto"}
    yaml.dump(values, folder / "auto.yaml")


def reseal_model(folder: Path, about: dict[str, Any] | None = None) -> None:
    """Let model.json state the digests that fit, where it states them."""
    file = folder / "model.json"
    found = json.loads(file.read_text()) if about is None else about
    if isinstance(found.get("files"), dict):
        for name in list(found["files"]):
            if (folder / Path(name).name).is_file():
                found["files"][name] = store.file_digest(folder / Path(name).name)
    sealed = getattr(models, "sealed", lambda values: values)
    file.write_text(json.dumps(sealed(found)))


def copied(project: Project, name: str, folder: Path) -> Project:
    """A copy in which the artefact `name` can be changed; the other files are links to those of `project`."""
    source = project.data.parent
    ignored = shutil.ignore_patterns("raw", ".*.verified", "scratch", "plots")
    shutil.copytree(source, folder, ignore=ignored, copy_function=os.link)
    (folder / "raw").symlink_to(source / "raw")
    own = graph.project(folder / "data")
    path = path_of(own, name)
    for file in path.iterdir() if path.is_dir() else [path]:
        content = (source / "encoded.h5" if name == ENCODED else file).read_bytes()
        file.unlink()
        file.write_bytes(content)
    return own


def path_of(project: Project, name: str) -> Path:
    """Where the artefact is that is changed."""
    if name == ENCODED:
        return project.path("images")
    return project.path(name) / RUN if name == "run" else project.path(name)


# --- Changes of JSON, CSV and tensors ---------------------------------------------------------------------


def _odd(rng: random.Random) -> Any:
    """A value that is not expected."""
    nested: Any = 1
    for _ in range(60):
        nested = [nested]
    numbers = [
        0,
        1,
        -1,
        2,
        7,
        0.5,
        1e308,
        -1e308,
        1e-320,
        float("nan"),
        float("inf"),
        10**9,
        10**25,
        -(2**63),
    ]
    texts = ["", "x", "\ud800", "a\nb", "<b>", "x" * 5000, "\x00", "nan", "1", "../../x"]
    holders = [[], {}, [[]], [None], {"": None}, {"mean": "x", "std": None}, nested, [1, 2, 3], ["a", "a"]]
    return rng.choice([None, True, False, *numbers, *texts, *holders])


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    found = []
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            found += _places(value[key])
    return found


def mutate_json(value: Any, rng: random.Random) -> None:
    """Change one thing in a JSON object, in place."""
    places = _places(value)
    if not places:
        value["x"] = _odd(rng)
        return
    holder, key = rng.choice(places)
    how = rng.choice(["odd", "odd", "odd", "drop", "text", "number", "swap", "double", "wrap", "rename"])
    now = holder[key]
    if how == "drop":
        del holder[key]
    elif how == "text":
        holder[key] = json.dumps(now)
    elif how == "number" and isinstance(now, (int, float)):
        holder[key] = rng.choice([-now, now * 10, now + 1, int(now), float(now), now - 1])
    elif how == "swap":
        other, there = rng.choice(places)
        holder[key], other[there] = json.loads(json.dumps(other[there])), json.loads(json.dumps(now))
    elif how == "double" and isinstance(now, list):
        holder[key] = rng.choice([now + now, now[:-1], now[::-1], now[:1]])
    elif how == "wrap":
        holder[key] = rng.choice([[now], {"x": now}])
    elif how == "rename" and isinstance(holder, dict):
        holder[rng.choice(["x", "", f"{key} ", *map(str, holder)])] = holder.pop(key)
    else:
        holder[key] = _odd(rng)


def mutate_text(text: str, rng: random.Random) -> bytes:
    """Change JSON or CSV as text."""
    how = rng.randrange(9)
    start = rng.randrange(len(text))
    if how == 0:
        return text[:start].encode()
    if how == 1:
        return text.encode() + b"\xff\xfe"
    if how == 2:
        return ("[" * 100_000).encode()
    if how == 3:
        return text.replace("1", "1" * 5000, 1).encode()
    if how == 4:
        return text.encode("utf-16")
    if how == 5:
        return b""
    if how == 6:
        return (text[:start] + "\x00" + text[start:]).encode()
    if how == 7:
        return text.replace("{", '{"made_from": {}, "made_from": 1, ', 1).encode()
    return ('{"x": ' * 5000 + "1" + "}" * 5000).encode()


def mutate_csv(text: str, rng: random.Random) -> bytes:
    """Change one thing in a CSV file."""
    rows = list(csv.reader(io.StringIO(text)))
    how = rng.randrange(12)
    row = rng.choice(rows)
    cell = rng.randrange(len(row))
    if how == 0:
        return mutate_text(text, rng)
    if how == 1:
        rows = [each[:cell] + each[cell + 1 :] for each in rows]
    elif how == 2:
        del row[cell]
    elif how == 3:
        row.insert(cell, "1")
    elif how == 4:
        rows.remove(row)
    elif how == 5:
        rows.append(row)
    elif how == 6:
        row[cell] = "x" * 200_000
    elif how == 7:
        rows = rows[:1]
    elif how == 8:
        rows[0][cell] = rows[0][0]
    else:
        odd = ["", "nan", "inf", "-1", "1e999", "abc", "0", "1", "2", "0x1", "1_0", "٣", "1" * 5000]
        row[cell] = rng.choice(odd)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def mutate_tensors(tensors: dict[str, Any], rng: random.Random) -> None:
    """Change one tensor, in place; one of the last layer as likely as one of the trunk."""
    heads = [name for name in tensors if not name.startswith("trunk.")]
    name = rng.choice(heads if heads and rng.random() < 0.7 else list(tensors))
    array = tensors[name]
    how = rng.randrange(10)
    if how == 0:
        del tensors[name]
    elif how == 1:
        tensors[rng.choice([f"{name}.x", "x", "head.weight", "trunk.x"])] = tensors.pop(name)
    elif how == 2:
        tensors["extra"] = np.zeros(3, np.float32)
    elif how == 3:
        array = np.atleast_1d(array)
        shapes = [array[..., None], array[None], array.reshape(-1), array[:0], array[..., :-1], array.T]
        tensors[name] = rng.choice(shapes)
    elif how == 4:
        dtype = rng.choice([np.float64, np.float16, np.int64, np.bool_, np.uint8, np.int8])
        with np.errstate(all="ignore"):
            tensors[name] = np.nan_to_num(array).astype(dtype)
    elif how == 5:
        tensors[name] = np.concatenate([array, array]) if array.ndim else np.stack([array, array])
    else:
        changed = np.array(array)
        values = [np.nan, np.inf, -np.inf, 3e38]
        if changed.dtype.kind != "f":
            large = 2 ** (8 * changed.itemsize - 2)
            values = [-1, large, -large]
        if how == 6 or not changed.ndim:
            changed[...] = rng.choice(values)
        else:
            changed.reshape(-1)[rng.randrange(max(changed.size, 1)) :][:1] = rng.choice(values)
        tensors[name] = changed


# --- Changes of HDF5 --------------------------------------------------------------------------------------


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


def _mutate_hdf5(path: Path, rng: random.Random) -> str:
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


def _mutate_model(folder: Path, rng: random.Random) -> str:
    how = rng.choice(["about", "about", "tensors", "tensors", "files", "metrics", "history", "text"])
    if how in ("metrics", "history"):
        name = "metrics.json" if how == "metrics" else "history.csv"
        if not (folder / name).exists():
            how = "about"
        elif rng.random() < 0.05:
            (folder / name).unlink()
        elif how == "history":
            (folder / name).write_bytes(mutate_csv((folder / name).read_text(), rng))
        else:
            _mutate_json_file(folder / name, rng)
    about = json.loads((folder / "model.json").read_text())
    if how == "about":
        mutate_json(about, rng)
    elif how in ("tensors", "files"):
        file = rng.choice(sorted(folder.glob("*.safetensors")))
        if how == "files":  # the changed file is there, but no digest of it
            del about["files"][file.name]
        tensors = load_file(file)
        mutate_tensors(tensors, rng)
        save_file({name: np.array(array, order="C") for name, array in tensors.items()}, file)
        if rng.random() < 0.05:
            file.write_bytes(file.read_bytes()[: rng.randrange(200)])
    reseal_model(folder, about)
    if how == "text":
        text = (folder / "model.json").read_text()
        (folder / "model.json").write_bytes(mutate_text(text, rng))
    return how


def _mutate_json_file(file: Path, rng: random.Random) -> None:
    value = json.loads(file.read_text())
    mutate_json(value, rng)
    text = json.dumps(value)
    file.write_bytes(mutate_text(text, rng) if rng.random() < 0.1 else text.encode())


def _mutate_table(folder: Path, rng: random.Random) -> str:
    if (folder / "mean.csv").exists() and rng.random() < 0.5:
        if rng.random() < 0.05:
            (folder / "mean.csv").unlink()
        else:
            (folder / "mean.csv").write_bytes(mutate_csv((folder / "mean.csv").read_text(), rng))
        return "csv"
    _mutate_json_file(folder / "metrics.json", rng)
    return "json"


def mutate(path: Path, name: str, rng: random.Random) -> str:
    """Change an artefact of the kind `name` and seal it again; return what was changed."""
    if name in (*HDF5, ENCODED):
        return _mutate_hdf5(path, rng)
    if name in MODELS or (name == "run" and rng.random() < 0.6):
        return _mutate_model(path, rng)
    if name == "run":
        path = path / "metrics.json"
    if name in TABLES:
        return _mutate_table(path, rng)
    _mutate_json_file(path, rng)
    return "json"


# --- What reads them --------------------------------------------------------------------------------------


def _run(*arguments: str) -> None:
    """A command of `mac`. A refusal is a MacError again.

    Raises:
        MacError: the command refuses, with one line.
    """
    result = CliRunner().invoke(mac, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert (result.exit_code, len(lines)) == (1, 1), result.stderr
        raise MacError(lines[0])


def _read_all(name: str, path: Path) -> None:
    with getattr(api, f"open_{name}")(path) as it:
        for array in it.values():
            array[:2].compute()
    if name == "images":
        api.images_table(path)


def read(project: Project, name: str, reader: str) -> None:
    """Read a changed artefact by one command, or by a function of `pipeline.api`."""
    folder, data = project.data.parent, str(project.data)
    path, out = path_of(project, name), folder / OUT
    image = str(folder / "raw" / "00.png")
    before = {"erm": ["--model", "mac"]}.get(name, [])
    stage = {"compare": "comparison_report", "retrain_auto": "retrain"}.get(reader, reader)
    params = ["--params", str(folder / ("auto.yaml" if reader == "retrain_auto" else "params.yaml"))]
    if reader == "inspect":
        _run("inspect", str(path))
        _run("inspect", str(path), "--json")
    elif reader == "inspect_table":
        _run("inspect", str(path / "metrics.json"))
    elif reader.startswith("api_"):
        _read_all(reader.removeprefix("api_"), path)
    elif reader in ("load", "load_dfr"):
        model, transform = api.load_model(path, method="dfr" if reader == "load_dfr" else None)
        model(transform(image)[None])
    elif reader == "browse":
        _run("inspect", str(project.path("masks")), "--csv", str(out))
        _run(
            "inspect",
            str(project.path("masks")),
            "--sort",
            "confidence",
            "--against",
            str(project.path("masks")),
        )
    elif reader == "picture":
        _run("inspect", str(project.path("masks")), "--image", "0", "--out", str(out))
    elif reader == "grid":
        _run("inspect", str(project.path("masks")), "--grid", "2x1", "--out", str(out))
    elif reader.startswith("predict"):
        model_of = ["--model", "dfr"] if reader.endswith("dfr") else before
        _run("predict", image, "--data", data, "--csv", str(out), *model_of)
    elif reader.startswith("explain"):
        model_of = ["--model", "dfr"] if reader.endswith("dfr") else before
        _run("explain", image, "--data", data, "--out", str(out), *model_of)
    elif reader.startswith("export"):
        model_of = ["--model", "dfr"] if reader.endswith("dfr") else before
        _run("export", "--format", "safetensors", "--out", str(out), "--data", data, *model_of)
    elif reader == "diagnose":
        _run("diagnose", "--data", data)
    else:
        made = graph.stage(stage).params
        for kind in graph.stage(stage).makes:
            if kind.name != name and project.path(kind.name).exists():
                _remove(project.path(kind.name))
        device = ["--device", "cpu"] if graph.stage(stage).device else []
        _run("-q", stage, "--data", data, *(params if made else []), *device)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _leavings(project: Project) -> list[Path]:
    """What is half written."""
    return [path for path in project.data.parent.rglob("*") if path.name.endswith((".tmp", ".old"))]


# --- One change after the other ---------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What happened: `ok`, `refused`, `traceback`, `crash`, `hang` or `leavings`; and the last line of it."""

    what: str
    how: str
    reader: str
    said: str


def outcome(project: Project, name: str, seed: int, folder: Path, quick: bool) -> Outcome:
    """Change one artefact, read it, and say what happened. The same seed gives the same.

    Args:
        quick: whether only the readers in QUICK read it, besides `mac inspect`.
    """
    warnings.simplefilter("ignore")  # a test makes errors of them
    rng = random.Random(f"{name} {seed}")
    np.random.seed(seed % 2**32)
    own = copied(project, name, folder)
    (folder / "other.h5").write_bytes(project.path("features").read_bytes())
    os.mkfifo(folder / "pipe")
    how = mutate(path_of(own, name), name, rng) if seed != AS_IT_IS else "nothing"
    found = Outcome("ok", how, "inspect", "")
    readers = [] if name in ("sweep",) else ["inspect"]
    others = [reader for reader in READERS[name] if reader in QUICK or not quick]
    if others:
        readers.append(rng.choice(others))
    for reader in readers:
        target = own
        if reader == "inspect" and name == "ablation":
            target = graph.project(own.data, ablation=own.path("ablation") / "metrics.json")
        try:
            read(target, name, reader)
        except MacError as error:
            if "\n" in str(error) or not str(error):
                return Outcome("traceback", how, reader, repr(str(error)))
            found = Outcome("refused", how, reader, str(error))
            break
        except BaseException as error:
            return Outcome("traceback", how, reader, _last(error))
    if left := _leavings(own):
        return Outcome("leavings", how, found.reader, str(left))
    return found


def _last(error: BaseException) -> str:
    place, at = error.__traceback__, ""
    while place is not None:
        if (
            "/pipeline/" in place.tb_frame.f_code.co_filename
            or "/stages/" in place.tb_frame.f_code.co_filename
        ):
            at = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
        place = place.tb_next
    return f"{at} {type(error).__name__}: {str(error)[:200]}"


def apart(project: Project, name: str, seed: int, folder: Path, quick: bool, limit: int = 20) -> Outcome:
    """`outcome` in a process of its own, with at most `limit` seconds, and 1 GiB beyond this one's."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])  # of data
    most = pages * resource.getpagesize() + (1 << 30)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(limit)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            found = outcome(project, name, seed, folder, quick)
            with os.fdopen(writing, "w", errors="replace") as pipe:
                pipe.write(json.dumps(found))
        except BaseException as error:
            print(f"{name} {seed}: the fuzz itself fails: {_last(error)}", file=sys.stderr)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status):
        what = "hang" if os.WTERMSIG(status) == signal.SIGALRM else "crash"
        return Outcome(what, "?", "?", f"signal {os.WTERMSIG(status)}")
    return Outcome(*json.loads(said)) if said else Outcome("crash", "?", "?", "nothing said")


def outcomes(
    project: Project, name: str, seeds: range, folder: Path, quick: bool
) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each seed."""
    for seed in seeds:
        yield seed, apart(project, name, seed, folder / f"{name}{seed}", quick)


def main() -> None:
    """Print a table, and all that is neither success nor refusal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=KINDS)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="only by the quick readers")
    parser.add_argument("--said", action="store_true", help="print the refusals too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    titles = ("ok", "refused", "traceback", "crash", "hang", "leavings")
    table, bad = [], 0
    statistics.RESAMPLES = 20  # enough for an interval, and quick
    with tempfile.TemporaryDirectory() as folder:
        project = build(Path(folder) / "made")
        gc.freeze()  # so that a child does not copy what it does not change
        for name in chosen.kinds:
            start, count = time.monotonic(), Counter[str]()
            as_it_is = apart(project, name, AS_IT_IS, Path(folder) / name, chosen.quick)
            assert as_it_is.what == "ok", as_it_is
            seeds = range(chosen.first, chosen.first + chosen.count)
            for seed, found in outcomes(project, name, seeds, Path(folder), chosen.quick):
                count[found.what] += 1
                if found.what not in ("ok", "refused") or chosen.said:
                    print(f"{name} {seed} {found.what} {found.how} {found.reader}: {found.said}", flush=True)
            bad += sum(count.values()) - count["ok"] - count["refused"]
            cells = "".join(f"{count[title]:>10}" for title in titles)
            table.append(f"{name:<16}{cells}{time.monotonic() - start:>10.0f}")
    print(f"{'kind':<16}" + "".join(f"{title:>10}" for title in (*titles, "seconds")), *table, sep="\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
