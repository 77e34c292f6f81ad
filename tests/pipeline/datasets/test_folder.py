"""The reader of one's own images: a table, or a tree."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import folder
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import ImageFile
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN

HEADER = "path,label,split,where,mask"
ROWS = ["a.jpg,cat,train,sofa,m.png", "b.jpg,dog,train,,", "c.jpg,cat,val,bench,", "d.jpg,dog,test,sofa,"]


def table(root: Path, text: str, **options: object) -> Dataset:
    root.mkdir(exist_ok=True)
    (root / "my.csv").write_bytes(text.encode())
    dataset = folder.read(root, folder.Options.model_validate({"metadata": "my.csv", **options}))
    dataset.check()
    return dataset


def lines(rows: list[str], header: str = HEADER, end: str = "\n") -> str:
    return end.join([header, *rows]) + end


def test_a_table_gives_its_rows_in_order(tmp_path: Path) -> None:
    dataset = table(tmp_path, lines(ROWS), attribute="where", mask="mask")
    assert dataset.groups.classes == ("cat", "dog")
    assert dataset.groups.attributes == ("bench", "sofa")
    assert [(r.image.name, r.label, r.attribute, r.split, r.foreground) for r in dataset.records] == [
        ("a.jpg", 0, 1, 0, ImageFile("m.png")), ("b.jpg", 1, UNKNOWN, 0, None),
        ("c.jpg", 0, 0, 1, None), ("d.jpg", 1, 1, 2, None),
    ]  # fmt: skip


def test_columns_that_are_not_named_are_not_looked_at(tmp_path: Path) -> None:
    dataset = table(tmp_path, lines(ROWS))
    assert dataset.groups.attributes == ()
    assert {r.attribute for r in dataset.records} == {UNKNOWN}
    assert {r.foreground for r in dataset.records} == {None}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + lines(ROWS),
        lines(ROWS, end="\r\n"),
        lines([r.replace(",", ";") for r in ROWS], HEADER.replace(",", "; ")),
        lines([r.replace(",", "\t") for r in ROWS], HEADER.replace(",", "\t")),
        lines([r.replace("train", "0").replace("val", "Validation") for r in ROWS]),
    ],
    ids=["BOM", "CRLF", "semicolons", "tabs", "split codes"],
)
def test_tables_as_people_write_them(tmp_path: Path, text: str) -> None:
    assert table(tmp_path, text, attribute="where", mask="mask") == table(
        tmp_path, lines(ROWS), attribute="where", mask="mask"
    )


def test_labels_with_gaps_are_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    dataset = table(tmp_path, lines(["a,10,0,,", "b,2,0,,", "c,2,1,,", "d,10,2,,"]))
    assert dataset.groups.classes == ("2", "10")
    assert [r.label for r in dataset.records] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            lines(ROWS, "file,label,split,where,mask"),
            {},
            "my.csv: no column path; it has file, label, split, where, mask",
        ),
        (lines(ROWS), {"attribute": "place"}, "my.csv: no column place; it has"),
        (lines([*ROWS, "a.jpg,dog,test,,"]), {}, "my.csv, line 6: path 'a.jpg' is there already (line 2)"),
        (
            lines([*ROWS, "../e.jpg,dog,test,,"]),
            {},
            "my.csv, line 6: path '../e.jpg' leaves the dataset's folder",
        ),
        (
            lines([*ROWS, "/e.jpg,dog,test,,"]),
            {},
            "my.csv, line 6: path '/e.jpg' is absolute; let dataset.options.prefix be",
        ),
        (
            lines([*ROWS, "e.jpg,dog,holdout,,"]),
            {},
            "my.csv, line 6: split is 'holdout', expected train, val or test (or 0, 1, 2)",
        ),
        (lines([*ROWS, "e.jpg,,test,,"]), {}, "my.csv, line 6: label is empty"),
        (lines([*ROWS, "e.jpg"]), {}, "my.csv, line 6: the line ends before column label"),
        (lines([*ROWS, "e.jpg,cow,test,,"]), {}, "no training image is of class cow"),
        (lines(ROWS[:3]), {}, "no image is in the split test"),
        (lines([r.replace("dog", "cat") for r in ROWS]), {}, "only one class (cat)"),
        (lines([]), {}, "my.csv: no rows"),
        (
            lines(ROWS),
            {"metadata": "other.csv"},
            "other.csv: cannot be read (No such file or directory); dataset.root should be",
        ),
        (
            lines(ROWS),
            {"metadata": "../my.csv"},
            "dataset.options.metadata: path '../my.csv' leaves the dataset's folder",
        ),
        ("path,label,split\na\0.jpg,cat,train\n", {}, "my.csv"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(MacError) as error:
        table(tmp_path / "root", text, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name)
    return root


def test_a_tree_has_a_class_a_folder_and_a_seeded_split_within_each(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{c}/{i:02d}.png" for c, n in (("cat", 20), ("dog", 40)) for i in range(n)))
    (root / "cat/notes.txt").write_text("")
    dataset = folder.read(root, folder.Options(metadata=None))
    assert dataset.groups.classes == ("cat", "dog")
    counts = np.zeros((2, 3), int)
    for record in dataset.records:
        counts[record.label, record.split] += 1
    assert counts.tolist() == [[14, 3, 3], [28, 6, 6]]
    assert folder.read(root, folder.Options(metadata=None)) == dataset
    assert folder.read(root, folder.Options(metadata=None, seed=1)) != dataset


def test_a_tree_that_is_split_already(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{s}/{c}/1.png" for s in ("train", "val", "test") for c in ("cat", "dog")))
    dataset = folder.read(root, folder.Options(metadata=None))
    assert [(r.image.name, r.label, r.split) for r in dataset.records] == [
        ("test/cat/1.png", 0, 2), ("test/dog/1.png", 1, 2), ("train/cat/1.png", 0, 0),
        ("train/dog/1.png", 1, 0), ("val/cat/1.png", 0, 1), ("val/dog/1.png", 1, 1),
    ]  # fmt: skip


def test_a_tree_without_images_or_that_is_not_there(tmp_path: Path) -> None:
    for root, message in ((tmp_path, "no images below it"), (tmp_path / "x", "no such folder")):
        with pytest.raises(MacError, match=message):
            folder.read(root, folder.Options(metadata=None))


def test_a_link_that_leads_out_of_a_tree_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "cat/1.png", "dog/1.png")
    tree(tmp_path, "secret.png")
    (root / "cat/2.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(MacError, match="leaves the dataset's folder"):
        folder.read(root, folder.Options(metadata=None))
