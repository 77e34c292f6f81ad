"""Paths of a table that are not those of the files: of Windows, of another spelling, of another folder."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from pipeline.compute.context import Context
from pipeline.datasets import read
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from pipeline.steps.prepare import prepare
from tests.conftest import nothing, open_file

SPLITS = ("train", "train", "val", "val", "test", "test")


def params(root: Path, paths: list[str], on_error: str = "fail") -> DatasetParams:
    """A table of these paths, filled up with those of other images."""
    (root / "img").mkdir(exist_ok=True)
    for number, name in enumerate((*range(10), "caf\u00e9", "back\\slash")):
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(root / "img" / f"{name}.png")
    paths += [f"img/{number}.png" for number in range(4, 10)][: 6 - len(paths)]
    rows = [
        f"{path},{'ab'[n % 2]},{split}\n" for n, (path, split) in enumerate(zip(paths, SPLITS, strict=True))
    ]
    (root / "m.csv").write_text("path,label,split\n" + "".join(rows), encoding="utf-8")
    return DatasetParams(
        name="folder",
        root=str(root),
        options={"metadata": "m.csv"},
        stored_size=4,
        to_stored="squash",
        range="auto",
        interpolation="bilinear",
        on_duplicates="fail",
        storage="pixels",
        on_error=on_error,  # type: ignore[arg-type]
    )


def names(dataset: Dataset) -> list[str]:
    return [record.image.name for record in dataset.records]


def test_paths_of_windows_are_read_where_the_file_is(tmp_path: Path) -> None:
    dataset = read(params(tmp_path, ["img\\0.png", ".\\img\\1.png", "img/back\\slash.png"]))
    assert names(dataset)[0] == "img/0.png"
    assert (tmp_path / names(dataset)[1]).samefile(tmp_path / "img/1.png")
    assert names(dataset)[2] == "img/back\\slash.png"
    assert dataset.notes == ("m.csv: 2 paths have the separators of Windows; \\ is read as /",)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("IMG/0.png", "img/0.png' is there, which differs in upper and lower case"),
        ("img/0.PNG", "img/0.png' is there, which differs in upper and lower case"),
        ("img/cafe\u0301.png", "img/caf\\xe9.png' is there, which differs in the Unicode form"),
        ("img/CAFE\u0301.png", "caf\\xe9.png' is there, which differs in upper and lower case"),
        ("IMG\\0.png", "is there, which differs in the separators of Windows and upper and lower case"),
        ("C:\\img\\0.png", "it has the separators of Windows"),
        ("..\\img\\0.png", "it has the separators of Windows"),
        ("pictures/0.png", "files are not there, such as"),
    ],
)
def test_a_path_that_is_not_there_is_told_with_what_is(tmp_path: Path, path: str, told: str) -> None:
    dataset = read(params(tmp_path, [path]))
    assert len(dataset.notes) == 1
    assert f"1 of 6 files are not there, such as {tmp_path / path}" in dataset.notes[0]
    assert told in dataset.notes[0]
    with pytest.raises(MacError, match="No such file") as error:
        dataset.records[0].image.load(tmp_path)
    assert told in str(error.value) or "pictures" in path


def test_a_table_whose_paths_are_wrong_is_told_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [f"images/{number}.png" for number in range(4)]
    with pytest.raises(
        MacError, match="4 of 6 files are not there, such as .*images/0.png; correct the paths"
    ):
        read(params(tmp_path, list(wrong)))
    few, out = params(tmp_path, wrong[:2], "skip"), tmp_path / "images.h5"
    few = few.model_copy(update={"options": {"metadata": "m.csv"}})
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(MacError, match="no readable image|no training readable"),
    ):
        prepare(nothing(tmp_path), out, few, Context("cpu", tmp_path / "scratch"))
    assert caplog.text.count("2 of 6 files are not there") == 1
    one = params(tmp_path, ["img/0.png", "img/1.png", "img/2.png", "img/3.png", "gone.png"], "skip")
    rows = (tmp_path / "m.csv").read_text().splitlines()
    (tmp_path / "m.csv").write_text("\n".join([*rows, "img/8.png,a,test"]) + "\n")
    prepare(nothing(tmp_path), out, one, Context("cpu", tmp_path / "scratch"))
    with open_file(out) as images:
        assert len(images["path"]) == 6
    assert "gone.png" in (tmp_path / "prepare_errors.csv").read_text()
