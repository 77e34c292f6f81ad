"""Small bad inputs, made after public bug reports, that are handed around beside the repository."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets
from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.params.dataset import DatasetParams
from pipeline.steps.prepare import prepare
from pipeline.tools.inspection import describe
from tests.conftest import SHARED, nothing, open_file

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")


def params(case: str, **options: object) -> DatasetParams:
    return DatasetParams(
        name="folder",
        root=str(CASES / case),
        options={"metadata": None, **options},
        stored_size=64,
        to_stored="squash",
        range="auto",
        interpolation="bilinear",
        on_duplicates="fail",
        storage="pixels",
        on_error="fail",
    )


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        (
            "01_nested_splits",
            {},
            r"names of splits \(test, train, val\), others not \(chest_xray\); .*dataset.root",
        ),
        ("01c_seg_train", {}, r"names of splits \(seg_test, seg_train\), others not \(seg_pred\)"),
        ("11_float_labels", {"metadata": "m.csv"}, r"'0' \(3\) = '0.0' \(3\); '1' \(3\) = '1.0' \(3\)"),
        (
            "18_no_val_folder",
            {},
            "has test, train, but no images in val; move a share of each class to val/<class>/",
        ),
    ],
)
def test_refused(case: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(MacError, match=message):
        datasets.read(params(case, **options))


@pytest.mark.parametrize("table", ["ok", "idx", "voc"])
def test_a_quarter_of_each_image_is_foreground(tmp_path: Path, table: str) -> None:
    out = tmp_path / "images.h5"
    chosen = params("02_masks_0_1", metadata=f"{table}.csv", mask="mask")
    prepare(nothing(tmp_path), out, chosen, Context("cpu", tmp_path / "scratch"))
    with open_file(out) as images:
        assert images["foreground"][:].mean((1, 2)) == pytest.approx(0.25)
    assert "true masks: 24 of 24; 0 have no foreground" in describe(out)


def test_four_groups_have_four_names() -> None:
    dataset = datasets.read(params("03_group_names_collide", metadata="m.csv", attribute="place"))
    label, attribute = (
        np.array([getattr(r, name) for r in dataset.records]) for name in ("label", "attribute")
    )
    grouping = dataset.groups.grouping(label, attribute)
    assert grouping.names == ["a / b_c", "a / c", "a_b / b_c", "a_b / c"]
    assert grouping.count.tolist() == [16, 16, 16, 16]
    assert dataset.groups == Groups(("a", "a_b"), ("b_c", "c"))


def test_all_55_images_are_used() -> None:
    dataset = datasets.read(params("08_jfif_avif_ignored"))
    assert (len(dataset.records), dataset.notes) == (55, ())
    for record in dataset.records:
        if not record.image.name.endswith("jpg"):
            assert record.image.load(dataset.root).size[0] > 1


def test_paths_of_windows_are_read() -> None:
    dataset = datasets.read(params("16_backslashes", metadata="m.csv"))
    assert [record.image.name for record in dataset.records] == [f"img/{number}.png" for number in range(12)]
    assert "12 paths have the separators of Windows" in dataset.notes[0]
