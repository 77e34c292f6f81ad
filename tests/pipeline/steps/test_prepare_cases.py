"""Stage prepare on small bad datasets that were seen elsewhere (../shared/cases)."""

import csv
from pathlib import Path

import pytest

from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.steps.prepare import prepare
from tests.conftest import SHARED, nothing, open_file
from tests.pipeline.steps.test_prepare import params

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")


def run(tmp_path: Path, case: str, **changes: object) -> Path:
    out = tmp_path / "images.h5"
    given = params(CASES / case, **{"name": "folder", "options": {"metadata": None}, **changes})
    prepare(nothing(tmp_path), out, given, Context("cpu", tmp_path / "scratch"))
    return out


def test_six_images_in_train_and_test_with_opposite_labels(tmp_path: Path) -> None:
    message = (
        r"metadata.csv, line 26: path 'sp/0.jpg' is there already \(line 2\); an image has one row; "
        r"5 more are repeated: sp/1.jpg, sp/2.jpg, sp/3.jpg, sp/4.jpg, sp/5.jpg$"
    )
    with pytest.raises(MacError, match=message):
        run(tmp_path, "04_waterbirds_same_image_two_splits", name="waterbirds", options={})


def test_val_and_test_are_copies_of_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MacError, match=r"36 images \(test/cat/0.png .* are in different splits"):
        run(tmp_path, "05_same_bytes_train_test")
    with open_file(run(tmp_path, "05_same_bytes_train_test", on_duplicates="warn")) as images:
        assert len(images["path"]) == 36
    assert (
        "36 images (test/cat/0.png (test, cat) = train/cat/0.png (train, cat) = val/cat/0.png" in caplog.text
    )
    rows = list(csv.DictReader((tmp_path / "prepare_duplicates.csv").read_text().splitlines()))
    assert [row["path"] for row in rows if row["copies"] == "7"] == [
        "test/dog/1.png", "train/dog/1.png", "val/dog/1.png"
    ]  # fmt: skip


def test_a_damaged_indexed_image(tmp_path: Path) -> None:
    with open_file(run(tmp_path, "10_png_without_PLTE", on_error="skip")) as images:
        assert len(images["path"]) == 20
    (row,) = csv.DictReader((tmp_path / "prepare_errors.csv").read_text().splitlines())
    assert row["path"] == "dog/broken.png"
    assert "cannot be read as an image (its palette is missing)" in row["error"]
