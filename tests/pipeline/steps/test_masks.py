from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import MacError
from pipeline.method import maps
from pipeline.network import classifier
from pipeline.network.inputs import to_input_grid
from pipeline.params.cores import CoreParams
from pipeline.params.maps import MapParams
from pipeline.params.masks import MasksParams
from pipeline.project import Project
from pipeline.results.sides import sides_of
from pipeline.steps import masks as stage
from pipeline.steps.saliency import write_maps
from tests.cached import MAPS
from tests.conftest import edited
from tests.pipeline.steps import untrained
from tests.pipeline.steps.untrained import MASKS, SIDE, make_features, make_masks

NAMES = ("row", "target", "mask", "cam", "channel_mean")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with masks.h5; not to be changed."""
    project = untrained.write_project(tmp_path_factory.mktemp("project"))
    make_masks(project)
    return project


def arrays(project: Project) -> dict[str, np.ndarray]:
    with project.open("masks") as given:
        return {name: given.file("masks")[name][:] for name in NAMES}


def of_validation(project: Project) -> dict[str, np.ndarray]:
    with project.open("masks") as given:
        return {name: given.file("masks")[f"val/{name}"][:] for name in NAMES}


def make(project: Project, **changes: object) -> dict[str, np.ndarray]:
    make_masks(project, **changes)
    return arrays(project)


def test_masks_are_those_of_the_definition(made: Project) -> None:
    """From maps.h5 by NumPy alone, in float64: bilinear upsampling, and the K highest by sorting."""
    k = round(MASKS.top_k * SIDE * SIDE)
    with made.open("maps") as given:
        maps = {name: given.file("maps")[name][:] for name in given.file("maps")}
    for part, found in (("", arrays(made)), ("val/", of_validation(made))):
        assert (found["mask"].sum((1, 2)) == k).all()
        for name in ("row", "target", "cam", "channel_mean"):
            np.testing.assert_array_equal(found[name], maps[f"{part}{name}"])
        for cam, mask in zip(found["cam"], found["mask"], strict=True):
            scores = upsampled(upsampled(cam.astype(np.float64)).T).T
            lowest = np.sort(scores, axis=None)[-k]
            sure = np.abs(scores - lowest) > 1e-5 * np.abs(scores).max()  # beyond float32's rounding
            np.testing.assert_array_equal(mask[sure], (scores > lowest)[sure])
            assert sure.mean() > 0.98


def upsampled(values: np.ndarray) -> np.ndarray:
    """(h, …) to (SIDE, …): on straight lines between the cells' centres, constant beyond the outermost."""
    at = ((np.arange(SIDE) + 0.5) * len(values) / SIDE - 0.5).clip(0, len(values) - 1)
    below = np.floor(at).astype(int)
    above, share = np.minimum(below + 1, len(values) - 1), (at - below)[:, None]
    return (1 - share) * values[below] + share * values[above]


def test_the_training_part_is_the_same_without_the_validation_images(made: Project, tmp_path: Path) -> None:
    alone, expected = of_rows(made, tmp_path, np.arange(70)), arrays(made)
    for name, array in arrays(alone).items():
        np.testing.assert_array_equal(array, expected[name])
    with alone.open("masks") as given:
        assert "val/row" not in given.file("masks")


def of_rows(
    project: Project, folder: Path, rows: np.ndarray, method: str = "xgradcam", **pixels: Any
) -> Project:
    """The project with maps and masks of these rows alone, in a folder."""
    some = Project(project.data, project.kinds, {name: folder / f"{name}.h5" for name in ("maps", "masks")})
    params, context = MAPS.model_copy(update={"method": method}), untrained.context(project)
    with some.open("images", "erm") as given:
        write_maps(given, some.path("maps"), rows, params, context)
    with some.open("images", "erm", "maps") as given:
        stage.write_masks(given, some.path("masks"), MASKS, 0, context, **pixels)
    return some


def test_the_rest_can_be_the_core(project: Project) -> None:
    core, core_of_validation = arrays(project), of_validation(project)
    rest = make(project, maps=False, side="rest")
    np.testing.assert_array_equal(rest["mask"], ~core["mask"])
    np.testing.assert_array_equal(of_validation(project)["mask"], ~core_of_validation["mask"])
    np.testing.assert_array_equal(rest["cam"], core["cam"])


def test_the_file_says_how_it_was_made(made: Project) -> None:
    with made.open("images", "erm", "maps", "masks") as given:
        provenance = given.file("masks").provenance
        assert provenance.made_from == given.digests("images", "erm", "maps")
    made_of = MAPS.model_dump() | MASKS.model_dump(exclude={"external"})
    assert provenance.params == {**made_of, "retraining_set": untrained.RETRAINING_SET.model_dump()}


def test_making_the_masks_again_gives_the_same_bytes(project: Project) -> None:
    before = project.path("masks").read_bytes()
    make_masks(project)
    assert project.path("masks").read_bytes() == before
    assert not list((project.data / "scratch").iterdir())


def test_blocks_may_be_cut_anywhere_between_batches(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = project.path("masks").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_masks(project, maps=False)
    assert project.path("masks").read_bytes() == before


def test_finished_blocks_are_kept_whatever_the_number_of_previews(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("at the very end")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_previews", fail)
        with pytest.raises(RuntimeError, match="at the very end"):
            make_masks(project, maps=False)
    assert len(list((project.data / "scratch").glob("masks-*/**/*.safetensors"))) == 2
    monkeypatch.setattr(stage, "highest", fail)  # not needed any more
    make_masks(project, maps=False, previews=1)


def test_no_network_is_needed_for_a_new_k(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The highest 20 % are among the highest 30 %."""
    before = arrays(project)
    monkeypatch.setattr(classifier, "load", None)
    found = make(project, maps=False, top_k=0.2)
    assert (found["mask"].sum((1, 2)) == round(0.2 * SIDE * SIDE)).all()
    assert not (found["mask"] & ~before["mask"]).any()


def test_masks_of_given_rows_may_be_written_elsewhere(project: Project, tmp_path: Path) -> None:
    whole, rows = arrays(project), np.array([3, 50, 69])
    some = of_rows(project, tmp_path, rows)
    for name, array in arrays(some).items():
        np.testing.assert_allclose(array, whole[name][rows], rtol=1e-4, atol=1e-6)
    make_features(some)
    with some.open("originals", "masks", "features") as given:
        assert given.file("features")["train/row"][:].tolist() == rows.tolist()
        for name in ("train/original", "train/label", "train/attribute"):
            expected = given.file("originals")[name][:][rows]
            np.testing.assert_array_equal(given.file("features")[name][:], expected)


def test_the_knee_chooses_how_many_pixels_are_the_core_of_each_image(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = arrays(project)
    with caplog.at_level("INFO", "mac"):
        found = make(project, maps=False, size="knee", top_k=5000)  # which is not read
    with project.open("masks") as given:
        masks = given.file("masks")
        quantile, has_knee = masks["quantile"][:].astype(np.float64), masks["has_knee"][:]
        without = [int((~masks[name][:]).sum()) for name in ("has_knee", "val/has_knee")]
    assert found["mask"].sum((1, 2)).tolist() == [round((1 - q) * SIDE * SIDE) for q in quantile.round(1)]
    assert len(set(quantile)) > 1
    assert (quantile[~has_knee].round(1) == 0.8).all()
    for name in ("cam", "target", "channel_mean"):
        np.testing.assert_array_equal(found[name], before[name])
    assert caplog.messages[-1] == (
        f"saliency.size knee: no knee for {without[0]} of 70 images of the retraining set and "
        f"{without[1]} of 24 validation images; their q is 0.8"
    )
    written = project.path("masks").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_masks(project, maps=False, size="knee", top_k=5000)
    assert project.path("masks").read_bytes() == written


class ByHalves(nn.Module):
    """Knows cats by bright red, dogs by bright green; else it says cat. It maps cats' left, dogs' right."""

    def input(self, grid: torch.Tensor) -> torch.Tensor:
        return grid / 255 if grid.dtype == torch.uint8 else grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :2] - 0.5).relu().amax((2, 3)) + torch.tensor([0.1, 0.0])

    def maps(self, _model: nn.Module, batch: maps.Batch, _params: MapParams) -> maps.Maps:
        cams = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).expand(2, 2, 2)
        return maps.Maps(cams[batch.label], batch.label)


@pytest.mark.parametrize("size", ["top_k", "knee"])
def test_each_class_takes_the_side_that_tells_more(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size: str
) -> None:
    """All that tells cats and dogs apart is in the left half. Only validation labels count."""
    model = ByHalves()
    monkeypatch.setattr(classifier, "load", lambda *_: model)
    monkeypatch.setattr(classifier, "for_inference", lambda *_: model)
    monkeypatch.setitem(maps.MAPS, "xgradcam", model.maps)
    with edited(project.path("images")) as file:
        label, image = file["label"][:], np.zeros_like(file["image"][:])
        for code in range(2):
            image[label == code, 4:68:2, 4:20, code] = 255
        file["image"][:] = image
        file["attribute"][:] = -1
        file["label"][94:] = 0  # of the test split
    with caplog.at_level("INFO", "mac"):
        found = make(project, side="auto", size=size, top_k=0.5)
    with project.open("masks") as given:
        assert given.file("masks")["rest"][:].tolist() == [False, True]
        assert sides_of(given, 2) == ["core", "rest"]
    said = "cat core (right by the core 1.000, by the rest 1.000, of 12); dog rest (right by the core 0.000, "
    assert f"saliency.side auto: {said}by the rest 1.000, of 12)" in caplog.messages
    if size == "top_k":
        assert found["mask"][:, :, :32].all()
        assert not found["mask"][:, :, 32:].any()
        assert of_validation(project)["mask"][:, :, :32].all()


def test_masks_may_have_a_given_number_of_pixels(project: Project, tmp_path: Path) -> None:
    pixels = np.array([7, 4000, 7])
    some = of_rows(project, tmp_path, np.array([3, 50, 69]), "random", pixels=pixels)
    assert arrays(some)["mask"].sum((1, 2)).tolist() == pixels.tolist()


def test_random_masks_have_k_pixels_and_a_seed(project: Project) -> None:
    first, again = make(project, method="random"), make(project, method="random")
    other = make(project, method="random", seed=1)
    np.testing.assert_array_equal(first["mask"], again["mask"])
    assert (first["mask"] != other["mask"]).any((1, 2)).all()
    assert len(set(first["mask"].sum((1, 2)))) == 1
    assert np.abs(first["mask"].mean(0) - 0.3).max() < 0.35  # nowhere preferred


def test_true_masks_are_taken_as_they_are_and_rows_without_are_left_out(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["has_foreground"][:5] = False
    found = make(project, method="foreground")
    assert found["row"].tolist() == list(range(5, 70))
    with project.open("images", "erm") as given:
        foreground = torch.from_numpy(given.file("images")["foreground"][5:70])
        expected = to_input_grid(foreground, given.model("erm").spec)
    np.testing.assert_array_equal(found["mask"], expected)
    np.testing.assert_array_equal(make(project, method="foreground", side="rest")["mask"], expected)
    assert of_validation(project)["row"].tolist() == list(range(70, 94))
    with edited(project.path("images")) as file:
        file["has_foreground"][70:90] = False
    make(project, method="foreground")
    assert of_validation(project)["row"].tolist() == list(range(90, 94))
    with edited(project.path("images")) as file:
        file["has_foreground"][90:94] = False
    make(project, method="foreground")
    with project.open("masks") as given:
        assert not [name for name in NAMES if f"val/{name}" in given.file("masks")]


@pytest.mark.parametrize("row", [3, 80])
def test_a_true_mask_without_foreground_on_the_input_grid_is_refused(project: Project, row: int) -> None:
    """The stored mask of row 3 is a corner that the crop of the input grid takes off."""
    with edited(project.path("images")) as file:
        file["foreground"][row] = False
        file["foreground"][row, 0, 0] = row == 3
    with pytest.raises(
        MacError, match=f"with saliency.method foreground, 1 of 94 cores are empty, such as that of {row}.jpg"
    ):
        make(project, method="foreground")
    with edited(project.path("images")) as file:
        file["has_foreground"][row] = False
    assert len(make(project, method="foreground")["row"]) == (69 if row < 70 else 70)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 5000}, "saliency.top_k: 5000 pixels, but the input grid has only 64² = 4096"),
        (
            {"top_k": 4096, "side": "rest"},
            "saliency.top_k: with saliency.side 'rest', 4096 of 64²",
        ),
        (
            {"top_k": 4096, "side": "auto"},
            "saliency.top_k: with saliency.side 'auto', 4096 of 64²",
        ),
    ],
)
def test_bad_choices_are_one_line_and_leave_the_old_masks(
    project: Project, changes: dict[str, object], message: str
) -> None:
    before = project.path("masks").read_bytes()
    with pytest.raises(MacError, match=message):
        make(project, maps=False, **changes)
    assert project.path("masks").read_bytes() == before


def test_previews_are_hdf5_images(made: Project) -> None:
    with h5py.File(made.path("masks")) as file:
        pictures = dict(file["preview"])
        assert list(pictures) == ["row_0000000", "row_0000023", "row_0000046", "row_0000069"]
        for picture in pictures.values():
            assert picture.shape == (64, 64, 3)
            assert picture.attrs["CLASS"] == b"IMAGE"
            assert picture.attrs["IMAGE_SUBCLASS"] == b"IMAGE_TRUECOLOR"
            assert picture.attrs["INTERLACE_MODE"] == b"INTERLACE_PIXEL"


def test_the_stage_takes_all_its_parameters() -> None:
    assert set(MasksParams.model_fields) == {*CoreParams.model_fields, "external", "previews"}
