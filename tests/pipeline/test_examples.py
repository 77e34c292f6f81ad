"""examples.h5: what the report shows, and that any head's map comes out of it as out of the network."""

import numpy as np
import torch

from pipeline import store
from pipeline.examples import PICTURES, spread
from pipeline.method import xgradcam
from pipeline.method.masks import upsample
from pipeline.network import backbone
from pipeline.network.inputs import normalize
from pipeline.report.gallery import upsampled
from pipeline.results.coverage import input_grid
from pipeline.results.pictures import training_example
from tests.conftest import Project


def test_examples_are_spread_over_kinds() -> None:
    kind = np.array([0] * 48 + [1] * 2 + [5] * 3)
    taken = spread(kind, 8, 0)
    assert len(taken) == len(set(taken.tolist())) == 8
    assert set(kind[taken]) == {0, 1, 5}
    assert np.array_equal(taken, spread(kind, 8, 0))
    assert len(spread(kind, 99, 0)) == 53
    assert len(spread(kind[:0], 8, 0)) == 0


def test_they_are_what_the_network_sees(finished: Project) -> None:
    data = finished.data
    with (
        store.open_artefact(data / "images.h5", "images") as images,
        store.open_artefact(data / "masks.h5", "masks") as masks,
        store.open_artefact(data / "features.h5", "features") as features,
        store.open_artefact(data / "examples.h5", "examples", {"features": features.digest}) as examples,
    ):
        erm = store.open_model(data / "erm", "erm")
        weight, bias = (torch.from_numpy(part) for part in erm.head())
        for number, sample in enumerate(examples["train/sample"][:3]):
            expected = training_example(images, masks, features, int(sample))
            for picture, name in zip(examples["train/picture"][number], PICTURES, strict=True):
                assert np.array_equal(picture, getattr(expected, name))
        rows = features["test/row"][:][examples["test/sample"][:]]
        label = features["test/label"][:][examples["test/sample"][:]]
        assert len(rows)
        pixels = input_grid(images, images.rows("image", rows))
        assert np.array_equal(pixels.permute(0, 2, 3, 1), examples["test/image"][:])
        model = backbone.load(erm, torch.device("cpu"))
        with torch.no_grad():
            activations = model.activations(normalize(pixels))
        assert ((activations.mean((2, 3)) @ weight.T + bias).argmax(1).numpy() != label).all()  # mistakes, every one
        maps = xgradcam.closed_form(activations, weight, torch.from_numpy(label))
        kept = torch.einsum("bc,bchw->bhw", weight[label], torch.from_numpy(examples["test/map"][:]))
        torch.testing.assert_close(kept, maps)
        large = np.stack([upsampled(each.numpy(), 64) for each in maps])
        np.testing.assert_allclose(large, upsample(maps, 64), rtol=1e-4, atol=1e-4 * np.abs(large).max())


def test_a_page_without_mistakes(project: Project) -> None:
    project.set(examples__mistakes=0, examples__training=0)
    project.succeed("examples")
    project.succeed("report")
    assert "<article" not in (project.data / "report.html").read_text()
