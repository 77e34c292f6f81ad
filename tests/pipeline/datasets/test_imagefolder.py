"""Hugging Face's imagefolder: one table, or one in the folder of each split."""

import json
from pathlib import Path

import pytest

from pipeline.datasets import imagefolder
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError

ROWS = [{"file_name": f"{number}.png", "label": ["cat", "dog"][number % 2], "place": "ab"[number // 2]}
        for number in range(4)]  # fmt: skip


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".csv":
        file.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows))


def read(root: Path, **options: object) -> Dataset:
    dataset = imagefolder.read(root, imagefolder.Options.model_validate(options))
    dataset.check()
    return dataset


EXPECTED = [
    (f"{name}/{number}.png", number % 2, number // 2, split)
    for split, name in [(2, "test"), (0, "train"), (1, "validation")]
    for number in range(4)
]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("is_one", [True, False])
def test_splits_are_folders(tmp_path: Path, kind: str, is_one: bool) -> None:
    together = []
    for name in ("test", "train", "validation"):
        write(tmp_path / name / f"metadata.{kind}", ROWS)
        together += [row | {"file_name": f"{name}/{row['file_name']}"} for row in ROWS]
    if is_one:
        for name in ("test", "train", "validation"):
            (tmp_path / name / f"metadata.{kind}").unlink()
        write(tmp_path / f"metadata.{kind}", together)
    dataset = read(tmp_path, attribute="place")
    assert (dataset.groups.classes, dataset.groups.attributes) == (("cat", "dog"), ("a", "b"))
    assert [(r.image.name, r.label, r.attribute, r.split) for r in dataset.records] == EXPECTED


def test_splits_of_a_column_or_drawn(tmp_path: Path) -> None:
    rows = [row | {"file_name": f"{part}{row['file_name']}", "part": part}
            for part in ("train", "dev", "test") for row in ROWS]  # fmt: skip
    write(tmp_path / "metadata.jsonl", rows)
    assert [record.split for record in read(tmp_path, split="part").records] == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(record.split for record in read(tmp_path).records) == [0] * 8 + [1] * 2 + [2] * 2


def test_an_image_outside_of_the_splits_does_not_redraw_them(tmp_path: Path) -> None:
    rows = [row | {"file_name": f"{part}/{row['file_name']}", "part": part}
            for part in ("train", "validation", "test") for row in ROWS]  # fmt: skip
    write(tmp_path / "metadata.csv", [*rows, ROWS[1] | {"file_name": "extra/1.png", "part": "test"}])
    with pytest.raises(
        MacError, match=r"csv, line 14: extra/1.png is in no folder of a split, as 1 of 13 im"
    ):
        read(tmp_path)
    splits = [record.split for record in read(tmp_path, split="part").records]
    assert splits == [0] * 4 + [1] * 4 + [2] * 5


def test_val_alone_is_drawn_of_train(tmp_path: Path) -> None:
    """The usual layout of Hugging Face. The images of `test` stay as they are."""
    rows = [row | {"file_name": f"{place}/{row['file_name']}"} for place in "ab" for row in ROWS]
    for name in ("train", "test"):
        write(tmp_path / name / "metadata.jsonl", [*rows, *ROWS])
    dataset = read(tmp_path, val=0.3, seed=1)
    assert [record.split for record in dataset.records[:12]] == [2] * 12
    trained = dataset.records[12:]
    for label in (0, 1):  # round(0.3 * 6) of each class
        assert sorted(record.split for record in trained if record.label == label) == [0, 0, 0, 0, 1, 1]
    assert dataset.notes == ("no image is in the split val, so 4 images of train are drawn for it",)
    assert read(tmp_path, val=0.3, seed=1).records == dataset.records
    assert [r.split for r in read(tmp_path, val=0.3, seed=2).records] != [r.split for r in dataset.records]


def test_rows_are_left_out_of_a_column_of_splits_alone(tmp_path: Path) -> None:
    write(tmp_path / "train" / "metadata.csv", ROWS)
    with pytest.raises(
        MacError, match=r"leave_out has values of the column of splits, but .*split names none"
    ):
        read(tmp_path, leave_out=["test"])


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        MacError, match=r"nor in folders of splits; if the folders are the classes, dataset.name"
    ):
        read(tmp_path)
    write(tmp_path / "train" / "metadata.csv", [row | {"file_name": "../test/1.png"} for row in ROWS])
    with pytest.raises(
        MacError, match=r"metadata.csv, line 2: path '../test/1.png' leaves the folder of its table"
    ):
        read(tmp_path)
    write(tmp_path / "training" / "metadata.csv", ROWS)
    with pytest.raises(MacError, match="the folders train/, training/ are partly one split; keep one"):
        read(tmp_path)
    write(tmp_path / "metadata.jsonl", ROWS)
    with pytest.raises(MacError, match="has metadata.jsonl, and tables in train/ too; keep one kind"):
        read(tmp_path)
    write(tmp_path / "metadata.csv", ROWS)
    with pytest.raises(MacError, match="has metadata.csv and metadata.jsonl; keep one of them"):
        read(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").unlink()
    outside = tmp_path.parent / f"{tmp_path.name}.csv"
    write(outside, ROWS)
    (tmp_path / "metadata.csv").symlink_to(outside)
    with pytest.raises(MacError, match="path 'metadata.csv' leaves the dataset's folder"):
        read(tmp_path)
