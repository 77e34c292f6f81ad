"""Names of files, classes and attributes that a disk or a table can hold."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import read
from pipeline.datasets.listing import image_files
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import inside, open_image
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams

ODD = ["a b", "-rf", "=1+1", "a\x1b[31mb", "\u202egnp", "<b>", "'\"", "c\td", "犬", "$\\frac$", "x" * 200]


def tree(root: Path, *classes: str, file: str = "{}.png") -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(np.full((4, 4, 3), 30 * number, np.uint8)).save(root / name / file.format(number))
    return root


def read_from(root: Path, **options: Any) -> Dataset:
    params = {"name": "folder", "root": str(root), "options": {"metadata": None, **options}}
    return read(
        DatasetParams(
            **params,
            stored_size=4,
            to_stored="squash",
            range="auto",
            interpolation="bilinear",
            on_duplicates="fail",
            storage="pixels",
            on_error="fail",
        )
    )


def message_of(root: Path, **options: Any) -> str:
    with pytest.raises(MacError) as raised:
        read_from(root, **options)
    assert str(raised.value).isprintable()
    return str(raised.value)


def test_odd_names_are_names(tmp_path: Path) -> None:
    dataset = read_from(tree(tmp_path, *ODD, file="-\n\x1b{}\u202e.png"))
    assert set(dataset.groups.classes) == set(ODD)
    assert len(dataset.records) == 8 * len(ODD)
    assert dataset.records[0].image.load(dataset.root).size == (4, 4)


def test_names_that_are_not_utf_8_are_told_before_any_work(tmp_path: Path) -> None:
    bad = os.fsdecode(b"\xe9t\xe9")
    said = r"\udce9t\udce9"
    assert f"the name '{said}/" in message_of(tree(tmp_path / "a", "cat", bad))
    assert "is not UTF-8 text; rename this file or folder" in message_of(tmp_path / "a")
    assert f"cat/{said}0.png' is not UTF-8" in message_of(
        tree(tmp_path / "b", "cat", "dog", file=bad + "{}.png")
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("a\nb", "is no line of text"),
        ("a\u2028b", "is no line of text"),
        ("x" * 201, "has over 200 characters"),
    ],
)
def test_the_name_of_a_class_is_a_line(name: str, wrong: str, tmp_path: Path) -> None:
    assert f"{wrong}; rename it" in message_of(tree(tmp_path / "tree", "cat", name))
    splits = ["train", "train", "val", "test"]
    rows = [f'{n}.png,{"ab"[n % 2]},{split},"{name}"' for n, split in enumerate(splits)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,split,where", *rows]))
    assert wrong in message_of(tmp_path, metadata="m.csv", attribute="where")


@pytest.mark.parametrize(("root", "wrong"), [("x" * 300, "File name too long"), ("a\0b", "no such folder")])
def test_a_root_that_cannot_be_one_is_told(root: str, wrong: str) -> None:
    assert wrong in message_of(Path(root))


def test_a_pipe_is_neither_table_nor_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.csv")
    os.mkfifo(tmp_path / "a.png")
    assert "m.csv: is a named pipe, and no file" in message_of(tmp_path, metadata="m.csv")
    assert image_files(tmp_path, "")[0] == []
    for name, kind in {"a.png": "a named pipe", ".": "a folder", "/dev/zero": "a device"}.items():
        with pytest.raises(MacError, match=f"is {kind}, and no file"):
            open_image(tmp_path / name)
    with pytest.raises(MacError, match=r"^m.csv, line 2: path '/.*' leaves .*, or is absolute; give"):
        inside(tmp_path, str(tmp_path / "a.png"), "m.csv, line 2")
    for name in ("a\0b", "x" * 300 + ".png", "\udcff"):
        with pytest.raises(MacError, match=r"^m.csv, line 2: (path|the name) '.*' is (no path|not UTF-8)"):
            inside(tmp_path, f"{name}/x", "m.csv, line 2")
