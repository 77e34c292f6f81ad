"""The images of masks.h5 as a table: what it says is what the artefacts say."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from pipeline import graph, store
from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.results import visual
from pipeline.results.coverage import by_group
from pipeline.results.pictures import as_rgb, input_pixels
from pipeline.schemas import masks as schema
from pipeline.tools import browse
from pipeline.tools.browse import as_grid, as_rows, as_text
from tests import made_up
from tests.conftest import edited


def test_the_table_is_what_the_artefacts_say(artefacts: Project) -> None:
    rows = as_rows(browse.browse(artefacts.path("masks")))
    with artefacts.open("images", "erm", "masks", "features", "retrained") as given:
        images, masks, features = (given.file(name) for name in ("images", "masks", "features"))
        assert [row["row"] for row in rows] == masks["row"][:].tolist()
        phi, label = features["train/original"][:], features["train/label"][:]
        before, after = (
            softmax(given.model(name).head().logits(phi)[0].astype(float), -1)
            for name in ("erm", "retrained")
        )
        for number, row in enumerate(rows):
            assert row["path"] == f"{row['row']:02}.png"
            assert row["erm"] == given.groups.classes[before[number].argmax()]
            assert row["mac"] == given.groups.classes[after[number].argmax()]
            assert row["target"] == given.groups.classes[label[number]]
            assert row["right"] == (row["erm"] == row["target"])
            own, other = (float(each[number, label[number]]) for each in (before, after))
            assert row["confidence"] == pytest.approx(own)
            assert row["disagreement"] == pytest.approx(abs(other - own))
            assert row["iou"] is None
        for group in by_group(images, masks, given.model("erm").spec):
            found = [row["coverage"] for row in rows if row["group"] == group.group]
            known = [value for value in found if isinstance(value, float)]
            assert len(known) == group.n
            assert np.mean(known) == pytest.approx(group.mask_fg)
    assert rows[1]["coverage"] is None  # the made-up project does not know this image's true mask
    assert all(
        row["coverage"] is None for row in as_rows(browse.browse(artefacts.path("masks"), coverage=False))
    )


def test_sorting(artefacts: Project) -> None:
    table = browse.browse(artefacts.path("masks"))
    assert np.all(np.diff(table.by("confidence").values["confidence"]) >= 0)
    assert np.all(np.diff(table.by("disagreement").values["disagreement"]) <= 0)
    by_coverage = table.by("coverage")
    assert np.all(np.diff(by_coverage.values["coverage"][:-1]) >= 0)
    assert np.isnan(by_coverage.values["coverage"][-1])
    assert sorted(by_coverage.position) == table.position.tolist()
    with pytest.raises(
        MacError, match="iou: not known of any image; there is no other masks file to compare with"
    ):
        table.by("iou")
    assert len(table.first(0).by("iou")) == 0


def test_a_dataset_without_true_masks(tmp_path: Path) -> None:
    project = made_up.write(tmp_path, foregrounds=False)
    with pytest.raises(MacError, match="coverage: not known of any image; the dataset has no true masks"):
        browse.browse(project.path("masks")).by("coverage")


def copied(project: Project, out: Path, keep: float = 1.0, erm: str | None = None) -> Path:
    """A copy of masks.h5 whose masks are the first pixels of these, perhaps made by another ERM."""
    with project.open("masks") as given:
        masks = given.file("masks")
        made_from = dict(masks.provenance.made_from)
        made_from |= {"erm": erm} if erm else {}
        arrays = {name: masks[name][:] for name in schema.SCHEMA if name in masks}
    for mask in arrays["mask"]:
        inside = np.flatnonzero(mask)
        mask.reshape(-1)[inside[round(keep * len(inside)) :]] = False
    with store.create(out, "masks", schema.SCHEMA, {}, made_from) as file:
        for name, array in arrays.items():
            file.write(name, array)
    return out


def test_two_mask_files(artefacts: Project, tmp_path: Path) -> None:
    """Smaller masks that lie inside the larger ones: IoU is the ratio of their sizes."""
    masks = artefacts.path("masks")
    assert {row["iou"] for row in as_rows(browse.browse(masks, masks))} == {1.0}
    half = copied(artefacts, tmp_path / "half.h5", 0.5)
    assert {row["iou"] for row in as_rows(browse.browse(masks, half))} == {0.5}
    other = copied(artefacts, tmp_path / "other.h5", 0.25, erm="0" * 64)
    assert {row["iou"] for row in as_rows(browse.browse(masks, other))} == {0.25}


def test_masks_of_some_of_the_images(artefacts: Project, tmp_path: Path) -> None:
    with artefacts.open("masks") as given:
        masks = given.file("masks")
        chosen = np.array([1, 3])
        with store.create(
            tmp_path / "some.h5", "masks", schema.SCHEMA, {}, masks.provenance.made_from
        ) as file:
            for name in [name for name in schema.SCHEMA if name in masks]:
                file.write(name, masks[name][:][chosen])
    overlap = browse.browse(artefacts.path("masks"), tmp_path / "some.h5").values["iou"]
    assert np.flatnonzero(~np.isnan(overlap)).tolist() == [1, 3]


def test_masks_that_cannot_be_compared(artefacts: Project, own_artefacts: Project, tmp_path: Path) -> None:
    masks = artefacts.path("masks")
    with pytest.raises(MacError, match="holds 'images', expected masks"):
        browse.browse(masks, artefacts.path("images"))
    with edited(own_artefacts.path("images"), sealed=True) as file:
        file["image"][0] = 0
    with pytest.raises(MacError, match="was made from other images"):
        browse.browse(own_artefacts.path("masks"))
    shutil.copy(own_artefacts.path("masks"), tmp_path / "theirs.h5")
    with edited(tmp_path / "theirs.h5", sealed=True) as file:
        file["row"][...] = file["row"][:] + 16
    with pytest.raises(MacError, match=r"theirs.h5: has rows in row that are not of train"):
        browse.browse(masks, tmp_path / "theirs.h5")
    shutil.copy(own_artefacts.path("masks"), tmp_path / "theirs.h5")
    with edited(tmp_path / "theirs.h5", sealed=True) as file:
        for name in ("mask", "val/mask"):
            small = file[name][:, :32, :32]
            del file[name]
            file.create_dataset(name, data=small, chunks=(1, 32, 32), compression="gzip")
    with pytest.raises(MacError, match=r"its masks are \(32, 32\), those of .* \(64, 64\)"):
        browse.browse(masks, tmp_path / "theirs.h5")


def test_a_file_of_any_name_is_held_against_what_lies_beside_it(own_artefacts: Project) -> None:
    renamed = own_artefacts.path("masks").rename(own_artefacts.data / "mine.h5")
    assert len(browse.browse(renamed)) == 16
    with pytest.raises(MacError, match=r"masks\.h5: no such file; run 'mac masks'"):
        browse.browse(own_artefacts.path("masks"))
    own_artefacts.path("features").unlink()
    with pytest.raises(MacError, match="features.h5: no such file; run 'mac features'"):
        browse.browse(renamed)
    with pytest.raises(MacError, match="holds 'images', expected masks"):
        browse.browse(own_artefacts.path("images"))


def test_as_text(artefacts: Project) -> None:
    table = browse.browse(artefacts.path("masks")).by("confidence")
    lines = as_text(table, "confidence", 3).splitlines()
    assert lines[0] == "16 images, confidence: ERM's probability of the image's class, lowest first"
    assert lines[1].startswith("0 ")
    assert [line.split()[0] for line in lines[4:8]] == sorted(set(table.group))
    assert [int(line.split()[0]) for line in lines[-3:]] == table.row[:3].tolist()
    assert lines[-1].endswith(str(table.path[2]))


def test_as_grid(artefacts: Project) -> None:
    masks = artefacts.path("masks")
    table = browse.browse(masks).by("confidence")
    picture = np.asarray(as_grid(masks, table, "confidence", 3, 2))
    assert picture.shape == (2 * 198 + 8, 3 * 184 + 8, 3)
    with graph.project(artefacts.data).open("images", "erm", "masks") as given:
        pixels = as_rgb(input_pixels(given.file("images"), table.row[4:5], given.model("erm").spec))[0]
        core = visual.overlay(pixels, given.file("masks")["mask"][int(table.position[4])])
    large = Image.fromarray(core).resize((176, 176), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(picture[198 + 22 : 2 * 198, 8 + 184 : 2 * 184], np.asarray(large))
    assert as_grid(masks, table.first(2), "confidence", 3, 2).size == (2 * 184 + 8, 198 + 8)
    with pytest.raises(MacError, match=r"masks\.h5: no image is left to draw"):
        as_grid(masks, table.first(0), "confidence", 3, 2)


def test_histogram() -> None:
    assert browse.histogram(np.array([0.0, 0.0, 1.0])) == "0 █" + " " * 38 + "▄ 1"
    assert browse.histogram(np.array([])) == "0 " + " " * 40 + " 1"
