"""The same image twice: by its path, its bytes or its pixels."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.compute.context import Context
from pipeline.datasets import celeba
from pipeline.datasets.sources import inside
from pipeline.errors import MacError
from pipeline.steps.prepare import prepare
from tests import official_layouts
from tests.conftest import nothing, open_file
from tests.pipeline.steps.test_prepare import params

SPLITS = ("train", "train", "val", "val", "test", "test")


def write(root: Path, *more: str) -> None:
    """Six different images, 0.png to 5.png, cats and dogs in turn; and a table with them and more rows."""
    rng = np.random.default_rng(0)
    (root / "a").mkdir(parents=True)
    rows = ["path,label,split,place"]
    for number, split in enumerate(SPLITS):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(root / f"a/{number}.png")
        rows.append(f"a/{number}.png,{('cat', 'dog')[number % 2]},{split},here")
    (root / "m.csv").write_text("\n".join([*rows, *more]) + "\n")


def run(tmp_path: Path, **changes: object) -> Path:
    out = tmp_path / "images.h5"
    options = {"metadata": "m.csv", "attribute": "place"}
    given = params(tmp_path / "raw", **{"name": "folder", "options": options, **changes})
    prepare(nothing(tmp_path), out, given, Context("cpu", tmp_path / "scratch"))
    return out


def listed(tmp_path: Path) -> list[list[str]]:
    return list(csv.reader((tmp_path / "prepare_duplicates.csv").read_text().splitlines()))[1:]


@pytest.mark.parametrize(
    "path", ["a/0.png", "./a/0.png", "a//0.png", "a/./0.png", "a/../a/0.png", "b/../a/0.png"]
)
def test_a_path_that_is_there_already_in_any_spelling(tmp_path: Path, path: str) -> None:
    write(tmp_path / "raw", f"{path},dog,test,here")
    with pytest.raises(
        MacError, match=r"m.csv, line 8: path 'a/0.png' is there already \(line 2\); an image"
    ):
        run(tmp_path)


def test_a_step_back_out_of_a_linked_folder_is_another_place(tmp_path: Path) -> None:
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    assert inside(tmp_path, "link/../x.png", "") == "link/../x.png"
    assert inside(tmp_path, "far/../x.png", "") == "x.png"
    assert inside(tmp_path, "./link/x.png", "") == "link/x.png"


def copied(file: Path, new: Path) -> None:
    shutil.copy(file, new)


def saved_again(file: Path, new: Path) -> None:
    with Image.open(file) as image:
        image.convert("RGBA").save(new, compress_level=0)


@pytest.mark.parametrize("copy", [copied, os.link, os.symlink, saved_again])
def test_the_same_pixels_in_two_splits(
    tmp_path: Path, copy: object, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "raw", "a/x.png,cat,test,there")
    copy(tmp_path / "raw/a/0.png", tmp_path / "raw/a/x.png")  # type: ignore[operator]
    message = (
        r"2 images \(a/0.png \(train, cat\) = a/x.png \(test, cat\)\) have the same pixels but are in "
        r"different splits; take them out of one .*prepare_duplicates.csv; dataset.on_duplicates: warn"
    )
    with pytest.raises(MacError, match=message):
        run(tmp_path)
    assert not (tmp_path / "images.h5").exists()
    rows = [["0", "0", "a/0.png", "train", "cat", "here"], ["0", "6", "a/x.png", "test", "cat", "there"]]
    assert listed(tmp_path) == rows
    with caplog.at_level("INFO"), open_file(run(tmp_path, on_duplicates="warn")) as images:
        assert len(images["path"]) == 7
    assert "prepare: 1 of 1 blocks were done before" in caplog.text
    assert "a/x.png (test, cat)) have the same pixels but are in different splits; all" in caplog.text
    assert listed(tmp_path) == rows


def test_copies_within_a_split_are_counted_by_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = [f"a/{name}.png,{label},train,here" for name, label in (("x", "cat"), ("y", "cat"), ("z", "dog"))]
    write(tmp_path / "raw", *more)
    for name, original in (("x", 0), ("y", 0), ("z", 1)):
        shutil.copy(tmp_path / f"raw/a/{original}.png", tmp_path / f"raw/a/{name}.png")
    first = run(tmp_path).read_bytes()
    assert "5 images have the same pixels as another one of their split (3 of cat, 2 of dog)" in caplog.text
    assert [row[:3] for row in listed(tmp_path)] == [
        ["0", "0", "a/0.png"], ["0", "6", "a/x.png"], ["0", "7", "a/y.png"], ["1", "1", "a/1.png"],
        ["1", "8", "a/z.png"],
    ]  # fmt: skip
    assert run(tmp_path, on_duplicates="warn").read_bytes() == first
    for name in ("x", "y", "z"):
        Image.new("RGB", (20, 20), (ord(name), 0, 0)).save(tmp_path / f"raw/a/{name}.png")
    run(tmp_path)
    assert not (tmp_path / "prepare_duplicates.csv").exists()


def test_copies_with_other_labels_are_an_error_in_any_case(tmp_path: Path) -> None:
    write(tmp_path / "raw", "a/x.png,dog,train,here")
    shutil.copy(tmp_path / "raw/a/0.png", tmp_path / "raw/a/x.png")
    with pytest.raises(
        MacError, match=r"2 images \(a/0.png \(train, cat\) = a/x.png \(train, dog\)\) .* different classes"
    ):
        run(tmp_path, on_duplicates="warn")


def test_images_of_one_colour_and_unreadable_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unreadable images have no pixels, so they are no copies of each other, nor of black ones."""
    names = ("black", "dark", "bad", "worse")
    write(tmp_path / "raw", *[f"a/{name}.png,cat,train,here" for name in names])
    for name in names[:2]:
        Image.new("RGB", (20, 20)).save(tmp_path / f"raw/a/{name}.png")
    for name in names[2:]:
        (tmp_path / f"raw/a/{name}.png").write_bytes(b"bad")
    run(tmp_path, on_error="skip")
    assert "2 images have the same pixels as another one of their split (2 of cat)" in caplog.text
    assert [row[2] for row in listed(tmp_path)] == ["a/black.png", "a/dark.png"]


@pytest.mark.parametrize(
    ("spelling", "name", "first", "second"),
    [
        ("txt", "list_eval_partition", 1, 37),
        ("csv", "list_eval_partition", 2, 38),
        ("txt", "list_attr_celeba", 3, 39),
    ],
)
def test_an_image_that_is_twice_in_a_list_of_celeba(
    tmp_path: Path, spelling: str, name: str, first: int, second: int
) -> None:
    official_layouts.celeba(tmp_path, spelling)
    file = tmp_path / f"{name}.{spelling}"
    lines = file.read_text().splitlines()
    if name == "list_attr_celeba":
        lines[0] = str(int(lines[0]) + 1)
    file.write_text("\n".join([*lines, lines[first - 1]]) + "\n")
    message = rf"line {second}: .*000001.jpg'? is there already \(line {first}\); an image has one row"
    with pytest.raises(MacError, match=message):
        celeba.read(tmp_path, celeba.Options()).check()
