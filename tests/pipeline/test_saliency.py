import h5py
import numpy as np
import pytest
import torch

from pipeline import saliency, store
from pipeline.errors import MacError
from pipeline.method import xgradcam
from pipeline.method.masks import top_k_mask, upsample
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from tests.conftest import Project, edited


def test_maps_and_masks_are_those_of_the_definition(finished: Project) -> None:
    """Row by row through autograd, independent of the stage's batches and of the closed form."""
    with (
        store.open_artefact(finished.data / "images.h5", "images") as images,
        store.open_artefact(finished.data / "masks.h5", "masks") as masks,
    ):
        model = backbone.load(store.open_model(finished.data / "erm", "erm"), torch.device("cpu"))
        last = [name for name, _ in model.trunk.named_children()][-1]
        k = round(finished.params.saliency.top_k * 64 * 64)
        assert masks["row"][:].tolist() == np.flatnonzero(images["split"][:] == 0).tolist()
        assert (masks["mask"][:].sum((1, 2)) == k).all()
        for sample in (0, 41, 69):
            row = int(masks["row"][sample])
            x = normalize(to_input_grid(torch.from_numpy(images["image"][row][None]), 64, "center_crop"))
            cam = xgradcam.by_autograd(model, x, torch.tensor([images["label"][row]]), last)
            scale = cam.abs().max().item()
            np.testing.assert_allclose(masks["cam"][sample], cam[0].detach(), rtol=1e-4, atol=1e-4 * scale)
            mask = top_k_mask(upsample(torch.from_numpy(masks["cam"][sample][None]), 64), k)[0]
            np.testing.assert_array_equal(masks["mask"][sample], mask)


def make(project: Project, **changes: object) -> dict[str, np.ndarray]:
    project.set(**{f"saliency__{key}": value for key, value in changes.items()})
    project.succeed("saliency")
    with store.open_artefact(project.data / "masks.h5", "masks") as masks:
        return {name: masks[name][:] for name in ("row", "target", "mask", "cam")}


def test_making_the_masks_again_gives_the_same_bytes(project: Project) -> None:
    before = (project.data / "masks.h5").read_bytes()
    make(project)
    assert (project.data / "masks.h5").read_bytes() == before


def test_blocks_may_be_cut_anywhere_between_batches(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (project.data / "masks.h5").read_bytes()
    monkeypatch.setattr(saliency, "BATCHES", 1)
    make(project)
    assert (project.data / "masks.h5").read_bytes() == before


def test_an_inner_layer_has_a_finer_map(project: Project) -> None:
    coarse, fine = make(project), make(project, layer="features.3" if "squeezenet" in project.params.model.architecture else "stage3")
    assert fine["cam"].shape[1] > coarse["cam"].shape[1]
    assert (fine["mask"].sum((1, 2)) == coarse["mask"].sum((1, 2))).all()


def test_the_prediction_can_be_the_target(project: Project) -> None:
    label, prediction = make(project), make(project, target="prediction")
    with store.open_artefact(project.data / "features.h5", made_from=None) as features:
        weight, bias = store.open_model(project.data / "erm", "erm").head()
        predicted = (features["train/original"][:] @ weight.T + bias).argmax(1)
        np.testing.assert_array_equal(label["target"], features["train/label"][:])
    np.testing.assert_array_equal(prediction["target"], predicted)
    same = label["target"] == prediction["target"]
    np.testing.assert_array_equal(label["mask"][same], prediction["mask"][same])


def test_random_masks_have_k_pixels_and_a_seed(project: Project) -> None:
    first, again, other = make(project, method="random"), make(project), make(project, seed=1)
    np.testing.assert_array_equal(first["mask"], again["mask"])
    assert (first["mask"] != other["mask"]).any((1, 2)).all()
    assert len(set(first["mask"].sum((1, 2)))) == 1
    assert np.abs(first["mask"].mean(0) - 0.3).max() < 0.35  # nowhere preferred


def test_foreground_masks_are_the_true_ones_and_rows_without_are_left_out(project: Project) -> None:
    with edited(project.data / "images.h5") as file:
        file["has_foreground"][:5] = False
    found = make(project, method="foreground")
    assert found["row"].tolist() == list(range(5, 70))
    with store.open_artefact(project.data / "images.h5") as images:
        expected = to_input_grid(torch.from_numpy(images["foreground"][:][5:70]), 64, "center_crop")
    np.testing.assert_array_equal(found["mask"], expected)
    with edited(project.data / "images.h5") as file:
        file["has_foreground"][:] = False
    assert "no training image has a true mask" in project.fail("saliency")


def test_bad_choices_are_one_line_and_leave_the_old_masks(project: Project) -> None:
    before = (project.data / "masks.h5").read_bytes()
    project.set(saliency__top_k=5000)
    assert "saliency.top_k: 5000 pixels, but the input grid has only 64² = 4096" in project.fail("saliency")
    project.set(saliency__top_k=0.3, saliency__layer="nowhere")
    assert "the trunk has no layer 'nowhere'" in project.fail("saliency")
    assert (project.data / "masks.h5").read_bytes() == before


def test_previews_are_hdf5_images(finished: Project) -> None:
    with h5py.File(finished.data / "masks.h5") as file:
        pictures = list(file["preview"].values())
        assert len(pictures) == finished.params.saliency.previews
        for picture in pictures:
            assert picture.shape == (64, 64, 3)
            assert picture.attrs["CLASS"] == b"IMAGE"
            assert picture.attrs["IMAGE_SUBCLASS"] == b"IMAGE_TRUECOLOR"
            assert picture.attrs["INTERLACE_MODE"] == b"INTERLACE_PIXEL"


def test_a_diverged_model_is_told(project: Project) -> None:
    from safetensors.numpy import load_file

    erm = project.data / "erm"
    tensors = load_file(erm / "model.safetensors")
    tensors["head.weight"][:] = np.nan
    opened = store.open_model(erm, "erm")
    with store.create_folder(erm) as folder:
        store.write_model(folder, "erm", tensors, opened.spec, {}, opened.provenance.made_from)
    assert "the map of row 0 is not finite" in project.fail("saliency")
    with pytest.raises(MacError):
        store.open_model(erm, "retrained")


def test_a_class_balanced_retraining_set(project: Project) -> None:
    everything = make(project)
    balanced = make(project, balance="class")
    with store.open_artefact(project.data / "images.h5") as images:
        label = images["label"][:]
    counts = np.bincount(label[everything["row"]])
    assert np.bincount(label[balanced["row"]]).tolist() == [counts.min()] * 2
    assert (np.diff(balanced["row"]) > 0).all()
    kept = np.isin(everything["row"], balanced["row"])
    smallest = label[everything["row"]] == counts.argmin()
    assert kept[smallest].all()
    assert np.array_equal(make(project, balance="class")["row"], balanced["row"])
    assert not np.array_equal(make(project, balance="class", seed=1)["row"], balanced["row"])
    for stage in ("features", "retrain", "evaluate"):
        project.succeed(stage)
