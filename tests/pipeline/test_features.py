import numpy as np
import torch

from pipeline import features, store
from pipeline.method import pairing
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from tests.conftest import Project


def test_every_view_equals_one_made_alone(finished: Project) -> None:
    """Equations 1 and 2 and the forward pass for single rows, from images.h5 and masks.h5 by hand."""
    on = torch.device("cpu")
    with (
        store.open_artefact(finished.data / "images.h5", "images") as images,
        store.open_artefact(finished.data / "masks.h5", "masks") as masks,
        store.open_artefact(finished.data / "features.h5", "features") as cached,
    ):
        model = backbone.load(store.open_model(finished.data / "erm", "erm"), on)
        rows = masks["row"][:]
        label, mean = images["label"][:][rows], images["channel_mean"][:][rows]

        def grid(row: int) -> np.ndarray:
            return to_input_grid(torch.from_numpy(images["image"][row][None]), 64, "center_crop")[0].numpy() / 255.0

        def phi(x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return model.features(normalize(torch.from_numpy(x.astype(np.float32))[None]))[0].numpy()

        for r in range(2):
            draw = pairing.draw(label, 16, seed=0, r=r)
            np.testing.assert_array_equal(cached["train/partner"][r], draw.partner)
            np.testing.assert_array_equal(cached["train/batch"][r], draw.batch)
            for i in (0, 33, 69):
                j = draw.partner[i]
                b = mean[draw.batch == draw.batch[i]].mean(0)[:, None, None]
                x_i, x_j, m_i, m_j = grid(rows[i]), grid(rows[j]), masks["mask"][i].astype(float), masks["mask"][j].astype(float)
                expected = {
                    "original": x_i,
                    "masked": m_i * x_i + (1 - m_i) * b,
                    "combined": m_i * x_i + (1 - m_i) * (1 - m_j) * x_j + (1 - m_i) * m_j * b,
                }
                for name, x in expected.items():
                    found = cached[f"train/{name}"][i] if name == "original" else cached[f"train/{name}"][r, i]
                    np.testing.assert_allclose(found, phi(x), rtol=1e-3, atol=1e-4)
        for number, split in enumerate(("train", "val", "test")):
            expected_rows = np.flatnonzero(images["split"][:] == number)
            np.testing.assert_array_equal(cached[f"{split}/row"][:], expected_rows)
            np.testing.assert_array_equal(cached[f"{split}/label"][:], images["label"][:][expected_rows])
            np.testing.assert_allclose(cached[f"{split}/original"][3], phi(grid(expected_rows[3])), rtol=1e-3, atol=1e-4)


def test_making_the_features_again_gives_the_same_bytes(project: Project, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    before = (project.data / "features.h5").read_bytes()
    monkeypatch.setattr(features, "BATCHES", 1)
    project.succeed("features")
    assert (project.data / "features.h5").read_bytes() == before
    assert not list((project.data / "scratch").iterdir())


def test_features_are_contiguous_and_uncompressed(finished: Project) -> None:
    with store.open_artefact(finished.data / "features.h5", "features") as cached:
        for name in ("train/original", "train/masked", "train/combined", "val/original", "test/original"):
            assert cached[name].chunks is None
            assert cached[name].compression is None


def test_another_seed_pairs_otherwise_and_leaves_the_originals_alone(project: Project) -> None:
    with store.open_artefact(project.data / "features.h5") as cached:
        before = {name: cached[f"train/{name}"][:] for name in ("original", "partner", "combined")}
    project.set(features__seed=1)
    project.succeed("features")
    with store.open_artefact(project.data / "features.h5") as cached:
        np.testing.assert_array_equal(cached["train/original"][:], before["original"])
        assert (cached["train/partner"][:] != before["partner"]).any()
        assert (cached["train/combined"][:] != before["combined"]).any()
