"""Tables of all kinds: the same rows, whatever file has them; and what is refused."""

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets import folder, table
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import ImageFile
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN

ROWS: list[dict[str, Any]] = [
    {"path": "a,1.jpg", "label": 7, "split": "train", "place": "sofa", "night": True, "mask": "m.png"},
    {"path": "b.jpg", "label": 10, "split": "train", "place": None, "night": False, "mask": None},
    {"path": "c.jpg", "label": 7, "split": "val", "place": "bench", "night": True, "mask": None},
    {"path": "d.jpg", "label": 10, "split": "test", "place": "sofa", "night": False, "mask": None},
]


def as_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), file, row_group_size=2)


def as_json_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")


def as_tsv(file: Path, rows: list[dict[str, Any]]) -> None:
    lines = ["\t".join("" if value is None else str(value) for value in row.values()) for row in rows]
    file.write_text("\n".join(["\t".join(rows[0]), *lines]) + "\n")


KINDS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "my.parquet": as_parquet, "my.jsonl": as_json_lines, "my.tsv": as_tsv,
}  # fmt: skip


def read(root: Path, name: str, **options: object) -> Dataset:
    dataset = folder.read(root, folder.Options.model_validate({"metadata": name, **options}))
    dataset.check()
    return dataset


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_what_was_written(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name, ROWS)
    dataset = read(tmp_path, name, attribute=["place", "night"], mask="mask")
    assert dataset.groups.classes == ("7", "10")
    assert dataset.groups.attributes == ("bench+True", "sofa+False", "sofa+True")
    assert dataset.groups.names[2] == "7_sofa+True"
    assert [(r.image.name, r.label, r.attribute, r.split, r.foreground) for r in dataset.records] == [
        ("a,1.jpg", 0, 2, 0, ImageFile("m.png")), ("b.jpg", 1, UNKNOWN, 0, None),
        ("c.jpg", 0, 0, 1, None), ("d.jpg", 1, 1, 2, None),
    ]  # fmt: skip
    assert dataset.records[1].where in (f"{tmp_path / name}, line 3", f"{tmp_path / name}, row 2")
    with pytest.raises(
        MacError, match=f"{name}: no column where; it has path, label, split, place, night, mask"
    ):
        read(tmp_path, name, attribute="where")


def test_whole_numbers_that_a_gap_made_floats_are_whole(tmp_path: Path) -> None:
    rows = [
        row | {"split": float(number % 3), "place": 1.0 if number else None}
        for number, row in enumerate(ROWS)
    ]
    as_parquet(tmp_path / "my.parquet", rows)
    dataset = read(tmp_path, "my.parquet", attribute="place")
    assert dataset.groups.attributes == ("1",)
    assert [record.split for record in dataset.records] == [0, 1, 2, 0]


def test_decimals_and_dates_of_parquet_are_texts(tmp_path: Path) -> None:
    days = [date(2026, 1, 2), date(2026, 1, 3)]
    rows = [
        row | {"label": days[number % 2], "place": Decimal("1.50") + Decimal("0.50") * (number % 2)}
        for number, row in enumerate(ROWS)
    ]
    as_parquet(tmp_path / "my.parquet", rows)
    dataset = read(tmp_path, "my.parquet", attribute="place")
    assert dataset.groups.classes == ("2026-01-02", "2026-01-03")
    assert dataset.groups.attributes == ("1.50", "2")
    at = table.text_of(datetime(2026, 1, 2, 3, 4), "x", "y")
    assert at == "2026-01-02 03:04:00"


def test_a_cell_of_parquet_that_is_no_text_names_its_row(tmp_path: Path) -> None:
    places = [None, None, None, ["sofa"]]  # the second of the second group of rows
    as_parquet(tmp_path / "my.parquet", [r | {"place": p} for r, p in zip(ROWS, places, strict=True)])
    with pytest.raises(
        MacError, match=r"row 4: place is list, expected a text or a number; write it as one$"
    ):
        read(tmp_path, "my.parquet", attribute="place")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "my.jsonl, line 1: is not JSON (Expecting property name"),
        (["[" * 100_000], "my.jsonl, line 1: is not JSON ("),
        (['{"path": ' + "1" * 5000 + "}"], "my.jsonl, line 1: is not JSON (Exceeds the limit"),
        (["3"], "my.jsonl, line 1: is no JSON object such as"),
        (['{"path": ["a"], "label": 1, "split": 0}'], "my.jsonl, line 1: path is list, expected a text or a"),
        (['{"path": "a", "split": 0}', '{"path": "a", "label": 0}'], "line 1: label is empty; give every"),
        (['{"path": "../a", "label": 1, "split": 0}'], "my.jsonl, line 1: path '../a' leaves the dataset's"),
        (['{"path": "\\ud800", "label": 1, "split": 0}'], "my.jsonl, line 1: the name "),
        ([], "my.jsonl: no column path, label, split; it has none"),
    ],
)  # fmt: skip
def test_hostile_json_lines_are_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "my.jsonl").write_text("\n".join(lines))
    with pytest.raises(MacError) as error:
        read(tmp_path, "my.jsonl")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_hostile_parquet_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.parquet"
    as_parquet(file, [row | {"path": {"bytes": b"GIF", "path": "a.gif"}} for row in ROWS])
    with pytest.raises(
        MacError, match=r"row 1: path is dict, expected a text or a number; if it holds the images"
    ):
        read(tmp_path, "my.parquet")
    as_parquet(file, ROWS)
    whole = file.read_bytes()
    for contents in (b"", b"PAR1", whole[:200], whole[:50] + b"\xff" * 50 + whole[100:], whole[-60:]):
        file.write_bytes(contents)
        with pytest.raises(MacError, match=r"^\S*my.parquet") as error:
            read(tmp_path, "my.parquet", attribute="place")
        assert len(str(error.value).splitlines()) == 1
    file.write_bytes(whole)
    monkeypatch.setattr(table, "MOST_ROWS", 3)
    with pytest.raises(
        MacError, match=r"has 4 rows of [\d,]+ bytes in path, label, split, more than a table of 3"
    ):
        read(tmp_path, "my.parquet")


def test_without_pyarrow_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "my.parquet").touch()
    with pytest.raises(MacError, match=r"a Parquet file needs pyarrow: pip install 'mac-robust\[parquet\]'"):
        read(tmp_path, "my.parquet")


def test_a_table_of_subpopbench(tmp_path: Path) -> None:
    """As its `generate_metadata_imagenetbg` writes it: absolute paths, and splits of further test sets."""
    splits = {
        "train": "in9l/train",
        "val": "in9l/val",
        "test": "bg_challenge/original/val",
        "no_fg": "no_fg/val",
    }
    rows = ["split,filename,y,a"]
    for split, place in splits.items():
        rows += [f"{split},/data/bg/{place}/00_dog/{label}.JPEG,{label},0" for label in range(3)]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    names = {"path": "filename", "label": "y", "attribute": "a"}
    dataset = read(tmp_path, "metadata.csv", prefix="/data/bg", leave_out=["no_fg"], **names)
    assert [(r.image.name, r.label, r.attribute, r.split) for r in dataset.records][2:4] == [
        ("in9l/train/00_dog/2.JPEG", 2, 0, 0), ("in9l/val/00_dog/0.JPEG", 0, 0, 1),
    ]  # fmt: skip
    assert dataset.notes == ("3 rows are left out: split 'no_fg' (3)",)
    for options, message in [
        (
            {"leave_out": ["no_fg"]},
            "line 2: path '/data/bg/in9l/train/00_dog/0.JPEG' is absolute; let dataset.options.prefix be",
        ),
        (
            {"leave_out": ["no_fg"], "prefix": "/data/b"},
            "does not begin with dataset.options.prefix, '/data/b'",
        ),
        (
            {"prefix": "/data/bg"},
            "line 11: split is 'no_fg', expected train, val or test (or 0, 1, 2); rows of",
        ),
        (
            {"prefix": "/data/bg", "leave_out": list(splits)},
            "leave_out names all values of split; name fewer",
        ),
    ]:
        with pytest.raises(MacError) as error:
            read(tmp_path, "metadata.csv", **options, **names)
        assert message in str(error.value)


def test_leave_out_needs_a_column_of_splits(tmp_path: Path) -> None:
    as_json_lines(tmp_path / "my.jsonl", ROWS)
    with pytest.raises(
        MacError, match=r"my.jsonl: dataset.options.leave_out has values of the column of spl"
    ):
        read(tmp_path, "my.jsonl", split=None, leave_out=["test"])
    with pytest.raises(
        MacError, match=r"leave_out needs a table with a column of splits, but .*metadata names"
    ):
        folder.read(tmp_path, folder.Options(metadata=None, leave_out=["test"]))


def test_groups_of_several_attributes_are_there_if_one_of_them_has_one_value(tmp_path: Path) -> None:
    def noted(*nights: str) -> tuple[Dataset, str]:
        rows = [row | {"place": row["place"] or "sofa"} for row in ROWS]
        as_json_lines(
            tmp_path / "my.jsonl", [row | {"night": n} for row, n in zip(rows, nights, strict=True)]
        )
        dataset = read(tmp_path, "my.jsonl", attribute=["place", "night"])
        (note,) = dataset.notes
        return dataset, note

    dataset, note = noted("yes", "NA", "yes", "yes")
    assert dataset.groups.attributes == ("bench+yes", "sofa+yes")
    assert note == "night: 'NA' (1) count as unknown, as empty cells do"
    dataset, note = noted("NA", "NA", "NA", "NA")
    assert dataset.groups.attributes == ()
    assert note.endswith(", so there are no groups; if it is a value, spell it out")


def test_two_combinations_of_one_name_are_refused(tmp_path: Path) -> None:
    rows = [
        {"path": f"{number}.jpg", "label": number % 2, "split": number % 3, "a": a, "b": b}
        for number, (a, b) in enumerate([("x+y", "z"), ("x", "y+z")] * 3)
    ]
    as_json_lines(tmp_path / "my.jsonl", rows)
    with pytest.raises(
        MacError, match=r"two combinations of attributes would be named 'x\+y\+z'; rename a value"
    ):
        read(tmp_path, "my.jsonl", attribute=["a", "b"])
