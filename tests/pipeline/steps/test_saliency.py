import numpy as np
import pytest
import torch

from pipeline.errors import MacError
from pipeline.method import gradient_maps
from pipeline.network import classifier
from pipeline.network.inputs import to_input_grid
from pipeline.params.maps import MapParams
from pipeline.params.saliency import SaliencyParams
from pipeline.project import Project
from pipeline.steps import saliency as stage
from pipeline.tools.inspection import describe
from tests.conftest import edited
from tests.pipeline.steps import untrained
from tests.pipeline.steps.untrained import SALIENCY, make_maps, make_masks, make_originals

NAMES = ("row", "target", "cam", "channel_mean")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with maps.h5; not to be changed."""
    project = untrained.write_project(tmp_path_factory.mktemp("project"))
    make_maps(project)
    return project


def arrays(project: Project, part: str = "") -> dict[str, np.ndarray]:
    with project.open("maps") as given:
        maps = given.file("maps")
        return {name: maps[f"{part}{name}"][:] for name in NAMES if f"{part}{name}" in maps}


def make(project: Project, **changes: object) -> dict[str, np.ndarray]:
    make_maps(project, **changes)
    return arrays(project)


def test_maps_are_those_of_the_definition(made: Project) -> None:
    """Row by row through autograd, independent of the stage's batches and of the closed form."""
    with made.open("images", "erm") as given:
        images, erm = given.file("images"), given.model("erm")
        model = classifier.load(erm.spec, erm.read(), torch.device("cpu"))
        for code, part in enumerate(("", "val/")):
            found = arrays(made, part)
            assert found["row"].tolist() == np.flatnonzero(images["split"][:] == code).tolist()
            for position in (0, 11, len(found["row"]) - 1):
                row = int(found["row"][position])
                grid = to_input_grid(torch.from_numpy(images["image"][row][None]), erm.spec)
                label = torch.tensor([images["label"][row]])
                cam = gradient_maps.by_autograd(model, model.input(grid), label, "conv5", "xgradcam")
                tolerance = 1e-4 * cam.abs().max().item()
                np.testing.assert_allclose(found["cam"][position], cam[0].detach(), 1e-4, tolerance)


def test_the_file_says_how_it_was_made(made: Project) -> None:
    with made.open("images", "erm", "maps") as given:
        provenance = given.file("maps").provenance
        assert provenance.made_from == given.digests("images", "erm")
    made_of = SALIENCY.model_dump(exclude={"most_constant"})
    assert provenance.params == {**made_of, "retraining_set": untrained.RETRAINING_SET.model_dump()}


def test_the_bytes_are_the_same_again_and_however_the_blocks_are_cut(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = project.path("maps").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_maps(project)
    assert project.path("maps").read_bytes() == before
    assert not list((project.data / "scratch").iterdir())


def test_an_interrupted_run_goes_on_where_it_was(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the five blocks, three were done; the network sees the images of the other two alone."""
    before, of_batch, seen = project.path("maps").read_bytes(), stage.maps.of_batch, list[int]()
    monkeypatch.setattr(stage, "BATCHES", 1)

    def stopped(*arguments: object) -> object:
        if len(seen) == 3:
            raise KeyboardInterrupt
        return counted(*arguments)

    def counted(*arguments: object) -> object:
        seen.append(len(arguments[1].x))
        return of_batch(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage.maps, "of_batch", stopped)
        make_maps(project)
    assert project.path("maps").read_bytes() == before
    project.path("maps").unlink()
    monkeypatch.setattr(stage.maps, "of_batch", counted)
    make_maps(project)
    assert project.path("maps").read_bytes() == before
    assert seen == [32, 32, 6, 24]


def test_channel_means_are_those_of_the_input_grid(made: Project) -> None:
    found = arrays(made)
    with made.open("images") as given:
        image = given.file("images")["image"][:][found["row"]]
    middle = image[:, 4:68, 4:68].astype(np.float64)
    np.testing.assert_allclose(found["channel_mean"], middle.mean((1, 2)) / 255, rtol=1e-6)


def test_an_inner_layer_has_a_finer_map(project: Project) -> None:
    coarse, fine = arrays(project), make(project, layer="stage3")
    assert fine["cam"].shape[1] > coarse["cam"].shape[1]


def test_the_prediction_can_be_the_target(project: Project) -> None:
    make_originals(project)
    with project.open("originals", "erm") as given:
        original = given.file("originals")["train/original"][:]
        predicted = given.model("erm").head().logits(original)[0].argmax(1)
        label = given.file("originals")["train/label"][:]
    by_label, by_prediction = arrays(project), make(project, target="prediction")
    np.testing.assert_array_equal(by_label["target"], label)
    np.testing.assert_array_equal(by_prediction["target"], predicted)
    same = label == predicted
    assert same.any()
    assert not same.all()
    np.testing.assert_array_equal(by_label["cam"][same], by_prediction["cam"][same])
    assert (by_label["cam"][~same] != by_prediction["cam"][~same]).any((1, 2)).all()


def test_no_network_is_asked_for_a_control_or_for_given_masks(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolution of noise is that of the maps; it takes one black image to see it."""
    before, shown, encode = arrays(project), list[int](), classifier.Classifier.encode

    def counted(self: classifier.Classifier, x: torch.Tensor) -> torch.Tensor:
        shown.append(len(x))
        return encode(self, x)

    monkeypatch.setattr(classifier.Classifier, "encode", counted)
    noise = make(project, method="random", flip=True)
    assert shown == [1]
    assert noise["cam"].shape == before["cam"].shape
    np.testing.assert_array_equal(make(project, method="random")["cam"], noise["cam"])
    assert (make(project, method="random", seed=1)["cam"] != noise["cam"]).any()
    shown.clear()
    with edited(project.path("images")) as file:
        file["has_foreground"][:5] = False
        file["has_foreground"][70:90] = False
    given = make(project, method="foreground")
    assert given.keys() == {"row", "target", "channel_mean"}
    assert (given["row"].tolist(), arrays(project, "val/")["row"].tolist()) == (
        list(range(5, 70)),
        list(range(90, 94)),
    )
    with edited(project.path("images")) as file:
        file["has_foreground"][:] = False
    with pytest.raises(MacError, match="no training image has a true mask"):
        make(project, method="foreground")
    assert not shown


def test_a_diverged_model_is_told(project: Project) -> None:
    with project.open("erm") as given:
        tensors = given.model("erm").read()
    tensors["head.weight"] = np.full_like(tensors["head.weight"], np.nan)
    untrained.write_erm(project, tensors)
    project.path("maps").unlink()
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


def with_tensors(project: Project, **changed: float) -> None:
    """ERM with all values of these tensors set; `__` stands for a dot."""
    with project.open("erm") as given:
        tensors = given.model("erm").read()
    for name, value in changed.items():
        tensors[name.replace("__", ".")][:] = value
    untrained.write_erm(project, tensors)
    project.path("maps").unlink()


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
    assert not project.path("maps").exists()
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
    _, head, training, validation = describe(project.path("maps")).rsplit("\n", 3)
    cam = found["cam"]
    shown = f"{100 * (cam > 0).mean():.1f}", f"{cam.min():.3g}", f"{cam.max():.3g}"
    assert head.split() == ["maps", "n", "blank", "positive,", "%", "lowest", "highest"]
    assert training.split()[-5:] == ["70", "24", *shown]
    assert validation.split()[-5:-3] == ["24", "12"]
    make_masks(project)
    assert "\nblank maps: 24 of 70 of the retraining set, 12 of 24 of validation\n" in describe(
        project.path("masks")
    )
    with edited(project.path("images")) as file:
        file["attribute"][:70] = -1
    with pytest.raises(MacError, match=r"24 of 70 .* \(dog_unknown 24 of 24\), a larger share than"):
        make(project, most_constant=0.3)
    np.testing.assert_array_equal(make(project, most_constant=0.5)["cam"], found["cam"])
    assert "(dog_unknown 24 of 24)" in caplog.messages[-1]


def test_the_stage_takes_all_its_parameters() -> None:
    assert set(SaliencyParams.model_fields) == {*MapParams.model_fields, "most_constant"}
