"""Files that someone made, sealed, to have this machine read what it should not, or to end in a traceback."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline import store
from pipeline.errors import MacError
from pipeline.schemas import features, masks
from pipeline.store import Codes, files, verified
from pipeline.store.artefact import _blocks
from pipeline.store.schema import Orders
from tests import cached
from tests.conftest import edited
from tests.pipeline.store import masks_file
from tests.pipeline.store.masks_file import REMEDY

ROWS = 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A masks.h5, with a FIFO, a text and another HDF5 file beside it."""
    made = tmp_path / "masks.h5"
    masks_file.write(made, ROWS)
    with edited(made, sealed=True) as file:
        file.create_group("preview")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_bytes(b"\1" * 4096)
    with h5py.File(tmp_path / "other.h5", "w") as other, h5py.File(made) as file:
        for name in masks.SCHEMA:
            if name in file:
                file.copy(name, other)
    return made


def changed(path: Path, change: Callable[[h5py.File], object]) -> None:
    """The file, changed and sealed; it comes from elsewhere, so there is no note of it here."""
    with edited(path, sealed=True) as file:
        change(file)
    verified.note_of(path).unlink()


def said_of(path: Path) -> str:
    with (
        pytest.raises(MacError) as error,
        store.open_artefact(path, "masks", masks.SCHEMA, REMEDY) as artefact,
    ):
        for name in artefact:
            artefact[name][:]
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert REMEDY in str(error.value)
    return str(error.value)


def put(name: str, *arguments: Any, **options: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, *arguments, **options)

    return change


def link(name: str, to: Callable[[h5py.File], Any]) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        there = to(file)
        del file[name]
        file[name] = there

    return change


def elsewhere(name: str, item: str = "row") -> Callable[[h5py.File], Any]:
    return lambda file: h5py.ExternalLink(str(Path(file.filename).with_name(name)), item)


def soft_through_another_file(file: h5py.File) -> None:
    file["out"] = elsewhere("other.h5", "/")(file)
    del file["row"]
    file["row"] = h5py.SoftLink("/out/row")


def soft_to_itself(file: h5py.File) -> None:
    file.move("row", "there")
    file["row"] = h5py.SoftLink("/there")


def raw(name: str) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        outside = str(Path(file.filename).with_name(name))
        put("row", (ROWS,), np.int64, external=[(outside, 0, h5py.h5f.UNLIMITED)])(file)

    return change


def virtual(source: str) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((ROWS,), np.int64)
        where = source if source == "." else str(Path(file.filename).with_name(source))
        layout[...] = h5py.VirtualSource(where, "row", (ROWS,), np.int64)
        del file["row"]
        file.create_virtual_dataset("row", layout)

    return change


def low_level(
    name: str, shape: tuple[int, ...], dtype: Any, prepare: Callable[[Any], object]
) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        prepare(made)
        kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
        h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), made)

    return change


def unknown_filter(made: Any) -> None:
    made.set_chunk((1, 8, 8))
    made.set_filter(32_999, h5py.h5z.FLAG_OPTIONAL, (1,))


def committed(file: h5py.File) -> None:
    file["type"] = np.dtype(np.int64)
    put("row", data=np.arange(ROWS), dtype=file["type"])(file)


AWAY = "in another file"
STRUCTURES: list[tuple[Callable[[h5py.File], object], str]] = [
    (link("row", elsewhere("other.h5")), AWAY),
    (link("row", elsewhere("pipe")), AWAY),
    (link("row", elsewhere("missing.h5")), AWAY),
    (soft_through_another_file, AWAY),
    (soft_to_itself, AWAY),
    (link("row", lambda file: h5py.SoftLink("/row")), AWAY),
    (raw("secret"), AWAY),
    (raw("pipe"), AWAY),
    (virtual("other.h5"), AWAY),
    (virtual("pipe"), AWAY),
    (virtual("."), AWAY),
    (low_level("row", (ROWS,), np.int64, lambda made: made.set_layout(h5py.h5d.COMPACT)), AWAY),
    (link("row", lambda file: file["preview"]), "'row' is not a dataset"),
    (link("row", lambda file: file["/"]), "'row' is not a dataset"),
    (committed, "'row' is int64 with 1 axes"),
    (put("row", (ROWS,), h5py.ref_dtype), "expected int64"),
    (put("row", (ROWS,), h5py.regionref_dtype), "expected int64"),
    (put("row", (ROWS,), h5py.vlen_dtype(np.int64)), "expected int64"),
    (put("row", (ROWS,), h5py.string_dtype()), "expected int64"),
    (put("row", (ROWS,), np.dtype([("a", np.int64)])), "expected int64"),
    (put("row", data=np.arange(ROWS), dtype=">i8"), "expected int64"),
    (put("row", data=h5py.Empty("i8")), "with 0 axes"),
    (put("mask", (ROWS, 8, 8), h5py.enum_dtype({"A": 0, "B": 1}, np.int8)), "expected bool"),
    (low_level("mask", (ROWS, 8, 8), np.bool_, unknown_filter), "filters that MaC does not use"),
    (put("mask", data=np.ones((ROWS, 8, 8), bool), compression="lzf"), "filters"),
    (put("mask", data=np.ones((ROWS, 8, 8), bool), shuffle=True), "filters"),
    (put("mask", data=np.ones((ROWS, 8, 8), bool), chunks=(2, 8, 8)), "chunks of (2, 8, 8)"),
    (put("mask", (ROWS, 8, 8), bool, chunks=(1, 8, 8), compression="gzip"), "lacks rows: 0 of 4"),
    (put("row", (10**9,), np.int64), "more than the file can hold"),
    (put("cam", (ROWS, 2, 2), np.float32), "has 0 of its"),
    (put("cam", data=np.ones((ROWS, 0, 2), np.float32)), "is empty along 'map height'"),
    (put("row", data=np.array([-1, 1, 2, 3])), "has -1, expected 0 to"),
    (put("row", data=np.array([2**60, 1, 2, 3])), "expected 0 to"),
    (put("row", data=np.array([1, 1, 2, 3])), "has numbers that are not in rising order"),
    (put("row", data=np.array([0, 2, 1, 3])), "has numbers that are not in rising order"),
    (put("cam", data=np.full((ROWS, 2, 2), np.nan, np.float32)), "has nan, expected finite"),
    (put("cam", data=np.full((ROWS, 2, 2), -np.inf, np.float32)), "has -inf, expected finite"),
    (put("channel_mean", data=np.full((ROWS, 3), 1.5, np.float32)), "has 1.5, expected 0 to 1"),
]


@pytest.mark.parametrize("number", range(len(STRUCTURES)))
def test_what_lies_elsewhere_or_has_another_form_or_value_is_refused(path: Path, number: int) -> None:
    change, message = STRUCTURES[number]
    changed(path, change)
    assert message in said_of(path)


def test_a_truth_value_that_is_none(path: Path) -> None:
    def change(file: h5py.File) -> None:
        stored = np.full((ROWS, 8, 8), 7, np.uint8)
        file["mask"].id.write(h5py.h5s.ALL, h5py.h5s.ALL, stored, file["mask"].id.get_type())

    changed(path, change)
    assert "'mask' has a truth value that is neither 0 nor 1" in said_of(path)


@pytest.mark.parametrize(
    ("batches", "problem"),
    [
        ([[0, 1, 0, 1], [1, 0, 0, 1]], ""),
        ([[0, 0, 0, 1], [1, 0, 0, 0]], ""),
        ([[0, 1, 0, 1], [0, 1, 0, 0]], "has draws with batches of other sizes"),
        ([[1, 1, 2, 2], [1, 1, 2, 2]], "has batches that are not numbered 0, 1, …"),
        ([[0, 0, 2, 2], [0, 0, 2, 2]], "has batches that are not numbered 0, 1, …"),
        ([[-1, 0, 0, 1], [-1, 0, 0, 1]], "has batches that are not numbered 0, 1, …"),
    ],
)
def test_every_draw_has_batches_of_the_same_sizes(batches: list[list[int]], problem: str) -> None:
    field = features.SCHEMA["train/batch"]
    assert field.problem(np.array(batches, np.int32), {}) == problem
    assert field.checked_at_once


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ([[0, 2, 1], [2, 1, 0]], ""),
        ([[0, 2, 2], [2, 1, 0]], "has a draw that does not have each train position once"),
        ([[0, 2, 3], [2, 1, 0]], "has a draw that does not have each train position once"),
        ([[0, 1], [1, 0]], "has a draw that does not have each train position once"),
    ],
)
def test_every_draw_has_every_position_once(order: list[list[int]], problem: str) -> None:
    field = features.SCHEMA["train/order"]
    assert field.problem(np.array(order, np.int32), {"train position": 3}) == problem
    assert field.checked_at_once


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ([[0, 2, 1, 3], [1, 0, 2, 3]], ""),
        ([[2, 0, 3, 1], [0, 1, 3, 2]], ""),
        ([[0, 1, 2, 3], [1, 0, 2, 3]], "is not in the order of 'train/batch'"),
        ([[0, 2, 1, 3], [2, 1, 0, 3]], "is not in the order of 'train/batch'"),
    ],
)
def test_an_order_is_that_of_the_batches(order: list[list[int]], problem: str) -> None:
    values = features.SCHEMA["train/order"].values
    assert isinstance(values, Orders)
    batch = np.array([[0, 1, 0, 1], [0, 0, 1, 1]], np.int32)
    assert values.contradiction(np.array(order, np.int32), batch) == problem


def test_an_order_that_contradicts_the_batches_is_refused_when_the_file_is_new(tmp_path: Path) -> None:
    path = cached.write(tmp_path).path("features")
    changed(path, lambda file: file["train/order"].__setitem__(..., file["train/order"][:][:, ::-1]))
    with pytest.raises(
        MacError, match="'train/order' is not in the order of 'train/batch'; run 'mac features'"
    ):
        store.open_artefact(path, "features", features.SCHEMA, "run 'mac features'").__enter__()


def test_numbers_that_may_be_there_once() -> None:
    examples = Codes("features/test position", unique=True)
    assert examples.problem(np.array([3, 1, 2]), {}) == ""
    assert examples.problem(np.array([3, 1, 3]), {}) == "has the same number twice"


ATTRIBUTES: list[tuple[str, Any, str]] = [
    ("params", 1, "attribute 'params' is no text"),
    ("params", h5py.Empty("S1"), "is no single value"),
    ("params", np.arange(3), "is no single value"),
    ("params", np.bytes_(b"\xff"), "utf-8"),
    ("params", "x" * (17 << 20), "is too long"),
    ("params", "[" * 9999, "nested too deeply"),
    ("params", '{"a": ' * 40 + "1" + "}" * 40, "nested too deeply"),
    ("params", '{"a": 1, "a": 2}', "a name is there twice"),
    ("params", '{"a": ' + "1" * 5000 + "}", "a number has 5000 digits"),
    ("params", '{"a": "\\ud800"}', "half of a character"),
    ("params", "[]", "params should be a mapping"),
    ("made_from", '{"images": 1}', "made_from should be a mapping"),
    ("version", "2", "attribute 'version' is no number"),
    ("version", 99, "schema version 99"),
    ("complete", False, "incomplete"),
    ("complete", np.float64("nan"), "attribute 'complete' is no number"),
    ("schema", 3, "attribute 'schema' is no text"),
]


@pytest.mark.parametrize(("name", "value", "message"), ATTRIBUTES)
def test_attributes_that_are_not_what_is_written(path: Path, name: str, value: Any, message: str) -> None:
    changed(path, lambda file: file.attrs.__setitem__(name, value))
    assert message in said_of(path)


def test_a_reference_is_no_attribute(path: Path) -> None:
    changed(path, lambda file: file.attrs.__setitem__("params", file.ref))
    assert "attribute 'params' is no text" in said_of(path)
    changed(path, lambda file: file.attrs.__delitem__("params"))
    assert "attribute 'params' is missing" in said_of(path)


@pytest.mark.parametrize("labels", [np.arange(3), np.array([b"a", b"b"]), "height", 3.5])
def test_labels_of_axes_and_descriptions_in_the_file_are_not_read(path: Path, labels: Any) -> None:
    """h5py crashes on labels that are numbers."""

    def change(file: h5py.File) -> None:
        file["mask"].attrs["DIMENSION_LABELS"] = labels
        file["mask"].attrs["about"] = file.ref
        file["preview/away"] = elsewhere("pipe")(file)
        file["preview/round"] = file["/"]
        file["more"] = elsewhere("pipe")(file)

    changed(path, change)
    with store.open_artefact(path, "masks", masks.SCHEMA, REMEDY) as artefact:
        assert artefact.axes("mask") == ["position", "height", "width"]
        assert artefact.about("mask") == masks.SCHEMA["mask"].about
        assert artefact.count_of_group("preview") == 2
        assert set(artefact) == {"row", "target", "mask", "cam", "channel_mean"}
    changed(path, link("preview", elsewhere("pipe", "/")))
    with store.open_artefact(path, "masks", masks.SCHEMA, REMEDY) as artefact:
        assert artefact.count_of_group("preview") is None


def test_a_group_on_the_way_that_is_a_link(tmp_path: Path) -> None:
    path = cached.write(tmp_path).path("features")
    os.mkfifo(tmp_path / "pipe")
    for there in (h5py.ExternalLink(str(tmp_path / "pipe"), "/train"), h5py.SoftLink("/val")):
        with edited(path, sealed=True) as file:
            if "train" in file:
                del file["train"]
            file["train"] = there
        with pytest.raises(MacError, match="'train/original' is in another file, or behind a link"):
            store.open_artefact(path, "features", features.SCHEMA, "").__enter__()


def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    for name in ("pipe", "."):
        there = path.parent / name
        with pytest.raises(MacError, match="and no file"):
            store.open_artefact(there, "masks", masks.SCHEMA, REMEDY).__enter__()
        with pytest.raises(MacError, match="and no file"):
            store.read_json(there, "")
        assert store.stated_kind(there) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1\n", "is not CSV"),
        (b"a,b\n1,2,3\n", "is not CSV"),
        (b"a,a\n1,2\n", "two columns have one name"),
        (b"", "is not CSV"),
        (b"a\n" + b"x" * 200_000, "field larger"),
        (b"a\n\xff\n", "no UTF-8 text"),
        (b'a\n"x', "is not CSV"),
        (b"a\n" + b"1\n" * 100_001, "has more than 100000 rows"),
    ],
)
def test_csv_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(MacError, match=message):
        store.read_csv(tmp_path / "a.csv", "")


def test_a_text_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_TEXT", 1 << 20)
    (tmp_path / "a.json").write_text(json.dumps({"a": "x" * (1 << 20)}))
    with pytest.raises(MacError, match="has more than 1 MiB"):
        store.read_json(tmp_path / "a.json", "")


def test_a_packed_row_is_unpacked_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.artefact._BLOCK", 16)
    with h5py.File(path) as file:
        assert [block.shape for block in _blocks(file["mask"])] == [(1, 8, 8)] * ROWS
        assert [block.shape for block in _blocks(file["cam"])] == [(1, 2, 2)] * ROWS
