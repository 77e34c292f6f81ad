import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import MacError
from pipeline.method import pairing
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.project import Opened, Project
from pipeline.steps import features as stage
from tests.conftest import edited
from tests.pipeline.steps import untrained
from tests.pipeline.steps.untrained import make_features, make_masks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with features.h5; not to be changed."""
    project = untrained.write_project(tmp_path_factory.mktemp("project"))
    make_masks(project, previews=0)
    make_features(project)
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """A copy, to be changed at will."""
    shutil.copytree(made.data, tmp_path / "data")
    return Project(tmp_path / "data", made.kinds)


def arrays(project: Project, *names: str) -> dict[str, np.ndarray]:
    with project.open("features") as given:
        return {name: given.file("features")[name][:] for name in names}


def by_hand(given: Opened) -> tuple[Callable[[int], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """The input grid of a row of images.h5, (3, S, S) in [0, 1]; and φ of one such input, (D,)."""
    images, erm = given.file("images"), given.model("erm")
    model = classifier.load(erm.spec, erm.read(), torch.device("cpu"))

    def grid(row: int) -> np.ndarray:
        return to_input_grid(torch.from_numpy(images["image"][row][None]), erm.spec)[0].numpy() / 255.0

    def phi(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            pixels = torch.from_numpy(x.astype(np.float32))[None]
            return model.features(normalize(pixels, erm.spec.normalization))[0].numpy()

    return grid, phi


def test_every_view_equals_one_made_alone(made: Project) -> None:
    """Equations 1 and 2 and the forward pass for single rows, from images.h5 and masks.h5 by hand."""
    with made.open("images", "erm", "masks", "features") as given:
        images, masks, cached = (given.file(name) for name in ("images", "masks", "features"))
        grid, phi = by_hand(given)
        rows = masks["row"][:]
        label, mean = images["label"][:][rows], masks["channel_mean"][:]

        for r in range(2):
            draw = pairing.draw(label, 16, seed=0, r=r)
            np.testing.assert_array_equal(cached["train/partner"][r], draw.partner)
            np.testing.assert_array_equal(cached["train/batch"][r], draw.batch)
            for i in (0, 33, 69):
                j = draw.partner[i]
                b = mean[draw.batch == draw.batch[i]].mean(0)[:, None, None]
                x_i, x_j = grid(rows[i]), grid(rows[j])
                m_i, m_j = masks["mask"][i].astype(float), masks["mask"][j].astype(float)
                expected = {
                    "original": x_i,
                    "masked": m_i * x_i + (1 - m_i) * b,
                    "combined": m_i * x_i + (1 - m_i) * (1 - m_j) * x_j + (1 - m_i) * m_j * b,
                }
                for name, x in expected.items():
                    found = (
                        cached[f"train/{name}"][i] if name == "original" else cached[f"train/{name}"][r, i]
                    )
                    np.testing.assert_allclose(found, phi(x), rtol=1e-3, atol=1e-4)
        for number, split in enumerate(("train", "val", "test")):
            expected_rows = np.flatnonzero(images["split"][:] == number)
            np.testing.assert_array_equal(cached[f"{split}/row"][:], expected_rows)
            np.testing.assert_array_equal(cached[f"{split}/label"][:], images["label"][:][expected_rows])
            found = cached[f"{split}/original"][3]
            np.testing.assert_allclose(found, phi(grid(expected_rows[3])), rtol=1e-3, atol=1e-4)


def test_every_view_of_a_validation_image_equals_one_made_alone(made: Project) -> None:
    """Core, rest and both combined for single rows by hand; partners are of the validation split."""
    with made.open("images", "erm", "masks", "features") as given:
        masks, cached = given.file("masks"), given.file("features")
        grid, phi = by_hand(given)
        rows, label = masks["val/row"][:], cached["val/label"][:]
        mask, mean = masks["val/mask"][:].astype(np.float64), masks["val/channel_mean"][:]
        assert cached["val/position"][:].tolist() == list(range(24))

        assert cached["val/masked"].shape == (2, 24, cached["val/original"].shape[1])
        for r in range(2):
            partner, batch = cached["val/partner"][r], cached["val/batch"][r]
            same = cached["val/partner_same"][r]
            assert (label[partner] != label).all()
            assert (label[same] == label).all()
            assert (same != np.arange(24)).all()
            assert np.bincount(batch).tolist() == [16, 8]
            for i in (0, 11, 23):
                j = partner[i]
                b = mean[batch == batch[i]].mean(0)[:, None, None]
                np.testing.assert_allclose(cached["val/fill"][r, i], b[:, 0, 0], rtol=1e-6)
                x_i, x_j, m_i, m_j = grid(rows[i]), grid(rows[j]), mask[i], mask[j]
                x_k, m_k = grid(rows[same[i]]), mask[same[i]]
                expected = {
                    "masked": m_i * x_i + (1 - m_i) * b,
                    "rest": (1 - m_i) * x_i + m_i * b,
                    "combined": m_i * x_i + (1 - m_i) * (1 - m_j) * x_j + (1 - m_i) * m_j * b,
                    "combined_same": m_i * x_i + (1 - m_i) * (1 - m_k) * x_k + (1 - m_i) * m_k * b,
                }
                for name, x in expected.items():
                    np.testing.assert_allclose(cached[f"val/{name}"][r, i], phi(x), rtol=1e-3, atol=1e-4)


def test_the_training_part_is_the_same_without_the_validation_views(project: Project) -> None:
    names = [f"train/{name}" for name in ("original", "masked", "combined", "partner", "batch", "fill")]
    before = arrays(project, *names, "val/original")
    with edited(project.path("masks")) as file:
        del file["val"]
    make_features(project, validation_draws=1)
    after = arrays(project, *names, "val/original")
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    with project.open("features") as given:
        assert sorted(given.file("features")["val"]) == ["attribute", "label", "original", "row"]


def test_validation_images_of_one_label_have_no_combined_view(project: Project) -> None:
    before = arrays(project, "val/masked", "val/rest", "val/batch", "train/combined")
    with edited(project.path("images")) as file:
        file["label"][70:94] = 1
    make_features(project)
    after = arrays(project, "val/masked", "val/rest", "val/batch", "train/combined")
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    with project.open("features") as given:
        for name in ("combined", "combined_same", "partner", "partner_same"):
            assert f"val/{name}" not in given.file("features")


def test_an_image_alone_in_its_class_is_seen_on_itself(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["label"][70:94] = [1] + [0] * 23
    make_features(project)
    found = arrays(project, "val/partner_same", "val/combined_same", "val/original")
    assert found["val/partner_same"][:, 0].tolist() == [0, 0]
    assert (found["val/partner_same"][:, 1:] > 0).all()
    for view in found["val/combined_same"]:
        np.testing.assert_allclose(view[0], found["val/original"][0], rtol=1e-3, atol=1e-4)


def test_only_validation_images_with_a_mask_have_views(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["has_foreground"][70:75] = False
    make_masks(project, method="foreground", previews=0)
    make_features(project)
    names = ("position", "partner", "partner_same", "label", "masked", "original")
    found = arrays(project, *(f"val/{name}" for name in names))
    assert found["val/position"].tolist() == list(range(5, 24))
    assert found["val/partner"].min() >= 5
    assert (found["val/label"][found["val/partner"]] != found["val/label"][5:]).all()
    assert found["val/partner_same"].min() >= 5
    assert (found["val/label"][found["val/partner_same"]] == found["val/label"][5:]).all()
    assert (found["val/masked"].shape[1], len(found["val/original"])) == (19, 24)


def test_the_file_says_how_it_was_made(made: Project) -> None:
    with made.open("images", "erm", "masks", "features") as given:
        cached = given.file("features")
        assert cached.provenance.made_from == given.digests("images", "erm", "masks")
        assert cached.provenance.params == untrained.FEATURES.model_dump()
        assert cached.attribute("classes") == ["cat", "dog"]
        assert cached.attribute("attributes") == ["day", "night"]


def test_making_the_features_again_gives_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = project.path("features").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_features(project)
    assert project.path("features").read_bytes() == before
    assert not list((project.data / "scratch").iterdir())


def test_features_are_contiguous_and_uncompressed(made: Project) -> None:
    with made.open("features") as given:
        for name in ("train/original", "train/masked", "train/combined", "val/original", "test/original"):
            assert given.file("features")[name].chunks is None
            assert given.file("features")[name].compression is None


def test_another_seed_pairs_otherwise_and_leaves_the_originals_alone(project: Project) -> None:
    names = ("train/original", "train/partner", "train/combined")
    before = arrays(project, *names)
    make_features(project, seed=1)
    after = arrays(project, *names)
    np.testing.assert_array_equal(after["train/original"], before["train/original"])
    assert (after["train/partner"] != before["train/partner"]).any()
    assert (after["train/combined"] != before["train/combined"]).any()


def test_the_fill_is_that_of_masks_h5(project: Project) -> None:
    before = arrays(project, "train/fill")["train/fill"]
    with edited(project.path("masks")) as file:
        file["channel_mean"][:] = 0.5
    make_features(project)
    assert (before != 0.5).all()
    assert (arrays(project, "train/fill")["train/fill"] == 0.5).all()


def test_one_class_alone_cannot_be_paired(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["label"][:] = 0
    with pytest.raises(MacError, match="features: every image of the retraining set has the same label"):
        make_features(project)


def test_no_image_is_shown_twice_to_find_those_of_low_loss(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, features = [], Classifier.features

    def counted(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        shown.append(len(x))
        return features(self, x)

    monkeypatch.setattr(Classifier, "features", counted)
    make_features(project, low_loss=0.7)
    views = {
        "train": ("original", "masked", "combined"),
        "val": ("original", "masked", "rest", "combined", "combined_same"),
        "test": ("original",),
    }
    stored = arrays(project, *(f"{split}/{view}" for split, names in views.items() for view in names))
    assert sum(shown) == sum(phi[..., 0].size for phi in stored.values())


def test_images_of_high_loss_are_left_as_they_are_and_are_no_partners(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"train/{name}" for name in ("original", "masked", "batch", "partner", "label")]
    everything = arrays(project, *names)
    with project.open("features", "erm") as given:
        assert "train/intervened" not in given.file("features")
        head = given.model("erm").head()
        logits = torch.from_numpy(head.logits(everything["train/original"])[0]).double()
    loss = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(everything["train/label"]), reduction="none"
    ).numpy()
    make_features(project, low_loss=0.7)
    found = arrays(project, *names, "train/intervened")
    among, partner = found["train/intervened"], found["train/partner"]
    np.testing.assert_array_equal(among, loss <= np.quantile(loss, 0.7))
    assert 0 < among.sum() < len(among)
    assert among[partner].all()
    assert (found["train/label"][partner] != found["train/label"]).all()
    for name in ("original", "masked", "batch", "label"):
        np.testing.assert_array_equal(found[f"train/{name}"], everything[f"train/{name}"])
    written = project.path("features").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_features(project, low_loss=0.7)
    assert project.path("features").read_bytes() == written
    with pytest.raises(
        MacError, match=r"features.low_loss: the 1 images with the lowest losses have one lab"
    ):
        make_features(project, low_loss=0.001)
