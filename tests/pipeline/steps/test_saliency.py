import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import MacError
from pipeline.method import gradient_maps, maps
from pipeline.method.masks import top_k_mask, upsample
from pipeline.network import classifier
from pipeline.network.inputs import to_input_grid
from pipeline.params.maps import MapParams
from pipeline.params.saliency import SaliencyParams
from pipeline.project import Project
from pipeline.results.sides import sides_of
from pipeline.steps import saliency as stage
from pipeline.tools.inspection import describe
from tests.conftest import edited
from tests.pipeline.steps import untrained
from tests.pipeline.steps.untrained import SALIENCY, SIDE, make_features, make_masks

NAMES = ("row", "target", "mask", "cam", "channel_mean")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with masks.h5; not to be changed."""
    project = untrained.write_project(tmp_path_factory.mktemp("project"))
    make_masks(project)
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """A copy, to be changed at will."""
    shutil.copytree(made.data, tmp_path / "data")
    return Project(tmp_path / "data", made.kinds)


def arrays(project: Project) -> dict[str, np.ndarray]:
    with project.open("masks") as given:
        return {name: given.file("masks")[name][:] for name in NAMES}


def of_validation(project: Project) -> dict[str, np.ndarray]:
    with project.open("masks") as given:
        return {name: given.file("masks")[f"val/{name}"][:] for name in NAMES}


def make(project: Project, **changes: object) -> dict[str, np.ndarray]:
    make_masks(project, **changes)
    return arrays(project)


def test_maps_and_masks_are_those_of_the_definition(made: Project) -> None:
    """Row by row through autograd, independent of the stage's batches and of the closed form."""
    found = arrays(made)
    with made.open("images", "erm") as given:
        images, erm = given.file("images"), given.model("erm")
        model = classifier.load(erm.spec, erm.read(), torch.device("cpu"))
        k = round(SALIENCY.top_k * SIDE * SIDE)
        assert found["row"].tolist() == np.flatnonzero(images["split"][:] == 0).tolist()
        assert (found["mask"].sum((1, 2)) == k).all()
        for position in (0, 41, 69):
            row = int(found["row"][position])
            grid = to_input_grid(torch.from_numpy(images["image"][row][None]), erm.spec)
            label = torch.tensor([images["label"][row]])
            cam = gradient_maps.by_autograd(model, model.input(grid), label, "conv5", "xgradcam")[0].detach()
            scale = cam.abs().max().item()
            np.testing.assert_allclose(found["cam"][position], cam, rtol=1e-4, atol=1e-4 * scale)
            mask = top_k_mask(upsample(torch.from_numpy(found["cam"][position][None]), SIDE), k)[0]
            np.testing.assert_array_equal(found["mask"][position], mask)


def test_validation_images_get_masks_as_training_images_do(made: Project, tmp_path: Path) -> None:
    """The same as if they were the retraining set; that one's masks are the same without them."""
    found = of_validation(made)
    params = MapParams(**SALIENCY.model_dump(include=set(MapParams.model_fields)))
    for rows, expected in ((found["row"], found), (np.arange(70), arrays(made))):
        with made.open("images", "erm") as given:
            assert given.rows("val").tolist() == found["row"].tolist()
            stage.write_masks(given, tmp_path / "alone.h5", rows, params, 0, untrained.context(made))
        alone = Project(made.data, made.kinds, {"masks": tmp_path / "alone.h5"})
        for name, array in arrays(alone).items():
            np.testing.assert_array_equal(array, expected[name])
        with alone.open("masks") as given:
            assert "val/row" not in given.file("masks")


def test_the_rest_can_be_the_core(project: Project) -> None:
    core, core_of_validation = arrays(project), of_validation(project)
    rest = make(project, side="rest")
    np.testing.assert_array_equal(rest["mask"], ~core["mask"])
    np.testing.assert_array_equal(of_validation(project)["mask"], ~core_of_validation["mask"])
    np.testing.assert_array_equal(rest["cam"], core["cam"])


def test_channel_means_are_those_of_the_input_grid(made: Project) -> None:
    found = arrays(made)
    with made.open("images") as given:
        image = given.file("images")["image"][:][found["row"]]
    middle = image[:, 4:68, 4:68].astype(np.float64)
    np.testing.assert_allclose(found["channel_mean"], middle.mean((1, 2)) / 255, rtol=1e-6)


def test_the_file_says_how_it_was_made(made: Project) -> None:
    with made.open("images", "erm", "masks") as given:
        provenance = given.file("masks").provenance
        assert provenance.made_from == given.digests("images", "erm")
    made_of = SALIENCY.model_dump(exclude={"external", "most_constant"})
    expected = {**made_of, "retraining_set": untrained.RETRAINING_SET.model_dump()}
    assert provenance.params == expected


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
    make_masks(project)
    assert project.path("masks").read_bytes() == before


def test_finished_blocks_are_kept_whatever_the_number_of_previews(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("at the very end")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_previews", fail)
        with pytest.raises(RuntimeError, match="at the very end"):
            make_masks(project)
    assert len(list((project.data / "scratch").glob("saliency-*/**/*.safetensors"))) == 2
    monkeypatch.setattr(classifier, "load", fail)  # not needed any more
    make_masks(project, previews=1)


def test_masks_of_given_rows_may_be_written_elsewhere(project: Project, tmp_path: Path) -> None:
    whole, rows = arrays(project), np.array([3, 50, 69])
    params = MapParams(**SALIENCY.model_dump(include=set(MapParams.model_fields)))
    with project.open("images", "erm") as given:
        stage.write_masks(given, tmp_path / "some.h5", rows, params, 0, untrained.context(project))
    some = Project(project.data, project.kinds, {"masks": tmp_path / "some.h5"})
    found = arrays(some)
    for name, array in found.items():
        np.testing.assert_allclose(array, whole[name][rows], rtol=1e-4, atol=1e-6)
    make_features(some)
    with some.open("masks", "features") as given:
        assert given.file("features")["train/row"][:].tolist() == rows.tolist()


def test_an_inner_layer_has_a_finer_map(project: Project) -> None:
    coarse, fine = arrays(project), make(project, layer="stage3")
    assert fine["cam"].shape[1] > coarse["cam"].shape[1]
    assert (fine["mask"].sum((1, 2)) == coarse["mask"].sum((1, 2))).all()


def test_the_prediction_can_be_the_target(project: Project) -> None:
    make_features(project)
    with project.open("features", "erm") as given:
        original = given.file("features")["train/original"][:]
        predicted = given.model("erm").head().logits(original)[0].argmax(1)
        label = given.file("features")["train/label"][:]
    by_label, by_prediction = arrays(project), make(project, target="prediction")
    np.testing.assert_array_equal(by_label["target"], label)
    np.testing.assert_array_equal(by_prediction["target"], predicted)
    same = label == predicted
    assert same.any()
    assert not same.all()
    np.testing.assert_array_equal(by_label["mask"][same], by_prediction["mask"][same])


def test_the_knee_chooses_how_many_pixels_are_the_core_of_each_image(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = arrays(project)
    with caplog.at_level("INFO", "mac"):
        found = make(project, size="knee", top_k=5000)  # which is not read
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
    make_masks(project, size="knee", top_k=5000)
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
    rows, pixels = np.array([3, 50, 69]), np.array([7, 4000, 7])
    params = MapParams(**{**SALIENCY.model_dump(include=set(MapParams.model_fields)), "method": "random"})
    with project.open("images", "erm") as given:
        context = untrained.context(project)
        stage.write_masks(given, tmp_path / "some.h5", rows, params, 0, context, pixels=pixels)
    some = Project(project.data, project.kinds, {"masks": tmp_path / "some.h5"})
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
    with edited(project.path("images")) as file:
        file["has_foreground"][:] = False
    with pytest.raises(MacError, match="no training image has a true mask"):
        make(project, method="foreground")


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
        ({"layer": "nowhere"}, "the trunk has no layer 'nowhere'"),
    ],
)
def test_bad_choices_are_one_line_and_leave_the_old_masks(
    project: Project, changes: dict[str, object], message: str
) -> None:
    before = project.path("masks").read_bytes()
    with pytest.raises(MacError, match=message):
        make(project, **changes)
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


def test_a_diverged_model_is_told(project: Project) -> None:
    with project.open("erm") as given:
        tensors = given.model("erm").read()
    tensors["head.weight"] = np.full_like(tensors["head.weight"], np.nan)
    untrained.write_erm(project, tensors)
    project.path("masks").unlink()
    with pytest.raises(MacError, match="tensor 'head.weight' has nan, expected finite .*; run 'mac train'"):
        make(project)


def test_a_class_balanced_retraining_set(project: Project) -> None:
    everything, balanced = arrays(project), make(project, balance="class")
    with project.open("images") as given:
        label = given.file("images")["label"][:]
    counts = np.bincount(label[everything["row"]])
    assert np.bincount(label[balanced["row"]]).tolist() == [counts.min()] * 2
    assert (np.diff(balanced["row"]) > 0).all()
    kept = np.isin(everything["row"], balanced["row"])
    smallest = label[everything["row"]] == counts.argmin()
    assert kept[smallest].all()
    assert np.array_equal(make(project, balance="class")["row"], balanced["row"])
    # The seed of random masks has no say in it; that of the retraining set has.
    assert np.array_equal(make(project, balance="class", seed=1)["row"], balanced["row"])
    assert not np.array_equal(make(project, balance="class", draw_seed=1)["row"], balanced["row"])
    make_features(project)


def test_the_stage_takes_all_its_parameters(made: Project) -> None:
    assert set(SaliencyParams.model_fields) == {
        *MapParams.model_fields,
        "external",
        "most_constant",
        "previews",
    }


def with_tensors(project: Project, **changed: float) -> None:
    """ERM with all values of these tensors set; `__` stands for a dot."""
    with project.open("erm") as given:
        tensors = given.model("erm").read()
    for name, value in changed.items():
        tensors[name.replace("__", ".")][:] = value
    untrained.write_erm(project, tensors)
    project.path("masks").unlink()


def test_a_network_with_dead_activations_is_refused_and_the_maps_are_kept(project: Project) -> None:
    """Its last normalisation gives zeros, so all maps are zero."""
    with_tensors(project, trunk__conv5__1__weight=0.0, trunk__conv5__1__bias=0.0)
    with pytest.raises(MacError) as error:
        make(project, most_constant=0.5)
    assert str(error.value) == (
        "saliency: the map is constant, so that it ranks no pixel, for 70 of 70 images of the retraining set "
        "(cat_day 40 of 40, cat_night 6 of 6, dog_day 4 of 4, dog_night 20 of 20), a larger share than "
        "saliency.most_constant, 0.5; take another saliency.method or saliency.layer, or, since the "
        "network's activations may be dead, another network or a lower train.lr (saliency.most_constant: 1 "
        "goes on)"
    )
    assert not project.path("masks").exists()
    kept = list((project.data / "scratch").glob("saliency-*/**/*.safetensors"))
    assert len(kept) == 2
    assert (make(project, most_constant=1.0)["cam"] == 0).all()
    assert not any(file.exists() for file in kept)
    make(project, most_constant=0.0, method="random")


def test_blank_maps_are_counted_by_group(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """The head does not look for dogs, and looks for cats everywhere. Unknown groups change no mask."""
    with_tensors(project, head__weight=0.0)
    with project.open("erm") as given:
        tensors = given.model("erm").read()
    tensors["head.weight"][0] = 1
    untrained.write_erm(project, tensors)
    found = make(project, most_constant=0.5)
    assert caplog.messages[-1] == (
        "saliency: blank maps, constant or nowhere positive: 24 of 70 images of the retraining set (dog_day "
        "4 of 4, dog_night 20 of 20); 12 of 24 validation images (dog_day 6 of 6, dog_night 6 of 6)"
    )
    assert "\nblank maps: 24 of 70 of the retraining set, 12 of 24 of validation\n" in describe(
        project.path("masks")
    )
    with edited(project.path("images")) as file:
        file["attribute"][:70] = -1
    with pytest.raises(MacError, match=r"24 of 70 .* \(dog_unknown 24 of 24\), a larger share than"):
        make(project, most_constant=0.3)
    np.testing.assert_array_equal(make(project, most_constant=0.5)["mask"], found["mask"])
    assert "(dog_unknown 24 of 24)" in caplog.messages[-1]
