import json
from collections.abc import Callable

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
            order = cached["train/order"][r].tolist()
            assert order == sorted(range(70), key=lambda i: draw.batch[i])
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
                        cached[f"train/{name}"][i]
                        if name == "original"
                        else cached[f"train/{name}"][r, order.index(i)]
                    )
                    np.testing.assert_allclose(found, phi(x), rtol=1e-3, atol=1e-4)
        for number, split in enumerate(("train", "val", "test")):
            expected_rows = np.flatnonzero(images["split"][:] == number)
            np.testing.assert_array_equal(cached[f"{split}/row"][:], expected_rows)
            np.testing.assert_array_equal(cached[f"{split}/label"][:], images["label"][:][expected_rows])
            found = cached[f"{split}/original"][3]
            np.testing.assert_allclose(found, phi(grid(expected_rows[3])), rtol=1e-3, atol=1e-4)


def test_every_view_of_a_validation_image_equals_one_made_alone(made: Project) -> None:
    """Core, rest and both combined for single rows by hand; partners are of the retraining set."""
    with made.open("images", "erm", "masks", "features") as given:
        masks, cached = given.file("masks"), given.file("features")
        grid, phi = by_hand(given)
        rows, label = masks["val/row"][:], cached["val/label"][:]
        mask, mean = masks["val/mask"][:].astype(np.float64), masks["val/channel_mean"][:]
        train_rows, train_mask = cached["train/row"][:], masks["mask"][:].astype(np.float64)
        train_label = cached["train/label"][:]
        assert cached["val/position"][:].tolist() == list(range(24))

        assert cached["val/masked"].shape == (2, 24, cached["val/original"].shape[1])
        for r in range(2):
            batch = cached["val/batch"][r]
            partner, same = cached["val/train_partner"][r], cached["val/train_partner_same"][r]
            assert (train_label[partner] != label).all()
            assert (train_label[same] == label).all()
            assert np.bincount(batch).tolist() == [16, 8]
            for i in (0, 11, 23):
                j, k = partner[i], same[i]
                b = mean[batch == batch[i]].mean(0)[:, None, None]
                np.testing.assert_allclose(cached["val/fill"][r, i], b[:, 0, 0], rtol=1e-6)
                x_i, x_j, x_k = grid(rows[i]), grid(train_rows[j]), grid(train_rows[k])
                m_i, m_j, m_k = mask[i], train_mask[j], train_mask[k]
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
    make_features(project, originals=False, validation_draws=1)
    after = arrays(project, *names, "val/original")
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    with project.open("features") as given:
        assert [name for name in given.file("features") if name.startswith("val/")] == [
            f"val/{name}" for name in ("original", "label", "attribute", "row")
        ]


def test_validation_images_of_one_label_have_partners_too(project: Project) -> None:
    before = arrays(project, "val/masked", "val/rest", "val/batch", "train/combined")
    with edited(project.path("images")) as file:
        file["label"][70:94] = 1
    make_features(project)
    after = arrays(project, *before, "val/train_partner", "val/train_partner_same", "train/label")
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert (after["train/label"][after["val/train_partner"]] == 0).all()
    assert (after["train/label"][after["val/train_partner_same"]] == 1).all()


def test_without_a_class_in_the_retraining_set_none_has_a_partner_of_the_same(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Classes are cat, dog and cow; the only cow is a validation image."""
    classes = ("cat", "dog", "cow")
    with edited(project.path("images")) as file:
        file.attrs["classes"] = json.dumps(classes)
        file["label"][93] = 2
    with project.open("erm") as given:
        tensors = given.model("erm").read()
    tensors |= {
        name: np.concatenate([tensors[name], tensors[name][:1]]) for name in ("head.weight", "head.bias")
    }
    untrained.write_erm(project, tensors, classes=classes)
    with edited(project.path("masks")) as file:
        file.attrs["made_from"] = "{}"
    caplog.set_level("WARNING", logger="mac")
    make_features(project)
    assert "the retraining set has no cow, so the diagnosis has no dependence" in caplog.text
    found = arrays(project, "val/train_partner", "val/label", "val/combined", "train/label")
    assert found["val/combined"].shape[:2] == (2, 24)
    assert (found["train/label"][found["val/train_partner"]] != found["val/label"]).all()
    with project.open("features") as given:
        assert not {"val/combined_same", "val/train_partner_same"} & set(given.file("features"))


def test_only_images_with_a_mask_have_views_and_are_partners(project: Project) -> None:
    """Without a true mask are training images 0 to 9 (so positions in train/ are not rows) and 5 of val."""
    with edited(project.path("images")) as file:
        file["has_foreground"][:10] = False
        file["has_foreground"][70:75] = False
    make_masks(project, method="foreground", previews=0)
    make_features(project)
    names = ("train/row", "train/label", "val/position", "val/label", "val/train_partner")
    found = arrays(project, *names, "val/train_partner_same", "val/combined_same")
    assert found["val/position"].tolist() == list(range(5, 24))
    label, own = found["train/label"], found["val/label"][5:]
    assert (label[found["val/train_partner"]] != own).all()
    assert (label[found["val/train_partner_same"]] == own).all()
    with project.open("images", "erm", "masks", "features") as given:
        images, masks, (grid, phi) = given.file("images"), given.file("masks"), by_hand(given)
        j = found["val/train_partner_same"][1, 3]
        b = given.file("features")["val/fill"][1, 3][:, None, None]
        x_i, x_j = grid(masks["val/row"][3]), grid(found["train/row"][j])
        m_i, m_j = masks["val/mask"][3].astype(float), masks["mask"][j].astype(float)
        assert images["label"][found["train/row"][j]] == own[3]
    x = m_i * x_i + (1 - m_i) * (1 - m_j) * x_j + (1 - m_i) * m_j * b
    np.testing.assert_allclose(found["val/combined_same"][1, 3], phi(x), rtol=1e-3, atol=1e-4)


def test_the_file_says_how_it_was_made(made: Project) -> None:
    with made.open("images", "erm", "originals", "masks", "features") as given:
        cached = given.file("features")
        assert cached.provenance.made_from == given.digests("images", "erm", "originals", "masks")
        assert cached.provenance.params == untrained.FEATURES.model_dump()
        assert cached.attribute("classes") == ["cat", "dog"]
        assert cached.attribute("attributes") == ["day", "night"]


def test_making_the_features_again_gives_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = project.path("features").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_features(project, originals=False)
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
    make_features(project, originals=False, seed=1)
    after = arrays(project, *names)
    np.testing.assert_array_equal(after["train/original"], before["train/original"])
    assert (after["train/partner"] != before["train/partner"]).any()
    assert (after["train/combined"] != before["train/combined"]).any()


def test_half_precision_is_the_rounded_features_and_what_it_cannot_hold_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("train/original", "train/masked", "train/combined", "val/rest", "test/original")
    before = arrays(project, *names)
    for low_loss in (1.0, 0.99):  # with the latter, the originals come first
        make_features(project, storage="float16", low_loss=low_loss)
        with project.open("features") as given:
            assert {given.file("features").stored(name).name for name in names} == {"float16"}
        for name, array in arrays(project, "train/original", "train/masked", "test/original").items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, before[name].astype(np.float16))
    whole = Classifier.features
    monkeypatch.setattr(Classifier, "features", lambda *args: whole(*args) * 1e6)
    message = r"features: they go up to .*, too large for float16; set features.storage to float32$"
    with pytest.raises(MacError, match=message):
        make_features(project, storage="float16")


def test_the_fill_is_that_of_masks_h5(project: Project) -> None:
    before = arrays(project, "train/fill")["train/fill"]
    with edited(project.path("masks")) as file:
        file["channel_mean"][:] = 0.5
    make_features(project, originals=False)
    assert (before != 0.5).all()
    assert (arrays(project, "train/fill")["train/fill"] == 0.5).all()


def test_one_class_alone_cannot_be_paired(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["label"][:] = 0
    with pytest.raises(MacError, match="features: every image of the retraining set has the same label"):
        make_features(project)


def test_no_image_is_shown_twice_and_no_original_at_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to find those of low loss: all originals are those of originals.h5."""
    shown, features = [], Classifier.features

    def counted(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        shown.append(len(x))
        return features(self, x)

    monkeypatch.setattr(Classifier, "features", counted)
    make_features(project, originals=False, low_loss=0.7)
    views = {"train": ("masked", "combined"), "val": ("masked", "rest", "combined", "combined_same")}
    stored = arrays(project, *(f"{split}/{view}" for split, names in views.items() for view in names))
    assert sum(shown) == sum(phi[..., 0].size for phi in stored.values())
    with project.open("originals", "features") as given:
        originals, found = given.file("originals"), given.file("features")
        for name in originals:
            np.testing.assert_array_equal(found[name][:], originals[name][:])


def test_originals_of_another_precision_or_another_retraining_set_are_refused(project: Project) -> None:
    with pytest.raises(MacError) as error:
        make_features(project, originals=False, precision="bfloat16")
    assert str(error.value) == (
        f"{project.path('originals')}: was made with other features.precision (float32) than params.yaml has "
        "(bfloat16); run 'mac originals' again"
    )
    with pytest.raises(MacError) as error:
        make_features(project, balance="class")
    assert str(error.value) == (
        f"{project.path('masks')}: has images that {project.path('originals')} lacks: they were made with "
        "other values of retraining_set; run 'mac saliency', 'mac masks' and 'mac originals' again"
    )


def test_images_of_high_loss_are_left_as_they_are_and_are_no_partners(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"train/{name}" for name in ("original", "masked", "batch", "partner", "label")]
    validation = ("val/train_partner", "val/combined")
    everything = arrays(project, *names, *validation)
    with project.open("features", "erm") as given:
        assert "train/intervened" not in given.file("features")
        head = given.model("erm").head()
        logits = torch.from_numpy(head.logits(everything["train/original"])[0]).double()
    loss = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(everything["train/label"]), reduction="none"
    ).numpy()
    make_features(project, originals=False, low_loss=0.7)
    found = arrays(project, *names, *validation, "train/intervened")
    among, partner = found["train/intervened"], found["train/partner"]
    np.testing.assert_array_equal(among, loss <= np.quantile(loss, 0.7))
    assert 0 < among.sum() < len(among)
    assert among[partner].all()
    assert (found["train/label"][partner] != found["train/label"]).all()
    for name in ("train/original", "train/masked", "train/batch", "train/label", *validation):
        np.testing.assert_array_equal(found[name], everything[name])
    written = project.path("features").read_bytes()
    monkeypatch.setattr(stage, "BATCHES", 1)
    make_features(project, originals=False, low_loss=0.7)
    assert project.path("features").read_bytes() == written
    with pytest.raises(
        MacError, match=r"features.low_loss: the 1 images with the lowest losses have one lab"
    ):
        make_features(project, originals=False, low_loss=0.001)
