"""examples.h5: what the report shows, and that any head's map comes out of it as out of the network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import graph
from pipeline.compute.context import Context
from pipeline.method import gradient_maps
from pipeline.method.masks import upsample
from pipeline.network import classifier
from pipeline.params.examples import ExamplesParams
from pipeline.project import Project
from pipeline.results.coverage import by_group
from pipeline.results.pictures import as_rgb, input_pixels, training_example
from pipeline.steps.examples import PICTURES, examples, spread
from pipeline.steps.report.gallery import upsampled
from pipeline.store import FittedHeads
from tests import made_up


def run(project: Project, out: Path, training: int, mistakes: int) -> None:
    params = ExamplesParams(training=training, mistakes=mistakes, seed=0)
    with project.open(*graph.stage("examples").needs) as given:
        examples(given, out, params, Context("cpu", out.parent))


@pytest.fixture(scope="module")
def shown(artefacts: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The made-up project with an examples.h5."""
    out = tmp_path_factory.mktemp("examples") / "examples.h5"
    run(artefacts, out, 5, 4)
    return graph.project(artefacts.data, examples=out)


def test_examples_are_spread_over_kinds() -> None:
    kind = np.array([0] * 48 + [1] * 2 + [5] * 3)
    taken = spread(kind, 8, 0)
    assert len(taken) == len(set(taken.tolist())) == 8
    assert set(kind[taken]) == {0, 1, 5}
    assert np.array_equal(taken, spread(kind, 8, 0))
    assert len(spread(kind, 99, 0)) == 53
    assert len(spread(kind[:0], 8, 0)) == 0


def test_training_images_are_shown_as_retraining_sees_them(shown: Project) -> None:
    with shown.open("images", "erm", "masks", "features", "examples") as given:
        file = given.file("examples")
        positions = file["train/position"][:]
        assert len(positions) == 5
        for number, position in enumerate(positions):
            expected = training_example(given, int(position))
            for picture, name in zip(file["train/picture"][number], PICTURES, strict=True):
                assert np.array_equal(picture, getattr(expected, name))
        label, attribute = (
            given.file("features")["train/label"][:],
            given.file("features")["train/attribute"][:],
        )
        assert len(set((2 * label + attribute)[positions])) == 4


def test_test_images_are_erm_s_mistakes_and_their_maps_are_the_network_s(shown: Project) -> None:
    with shown.open("images", "erm", "masks", "features", "examples") as given:
        file, features, erm = given.file("examples"), given.file("features"), given.model("erm")
        positions = file["test/position"][:]
        rows, label = features["test/row"][:][positions], features["test/label"][:][positions]
        assert len(rows) == 4
        pixels = input_pixels(given.file("images"), rows, erm.spec)
        assert np.array_equal(as_rgb(pixels), file["test/image"][:])
        model = classifier.load(erm.spec, erm.read(), torch.device("cpu"))
        with torch.no_grad():
            state = model.encode(model.input(pixels))
            assert (model.head(model.trunk.pool(state)).argmax(1).numpy() != label).all()
        for head in (erm.head(), FittedHeads(-2 * erm.head().weight, erm.head().bias)):
            weight = torch.from_numpy(head.weight[0])
            maps = gradient_maps.of_head(model.trunk, state, weight, torch.from_numpy(label))
            kept = torch.einsum("bc,bchw->bhw", weight[label], torch.from_numpy(file["test/map"][:]))
            torch.testing.assert_close(kept, maps)
        large = np.stack([upsampled(each.numpy(), 64) for each in maps])
        np.testing.assert_allclose(large, upsample(maps, 64), rtol=1e-4, atol=1e-4 * np.abs(large).max())


def test_what_it_says_of_itself(shown: Project) -> None:
    with shown.open("images", "erm", "masks", "features", "examples") as given:
        file = given.file("examples")
        assert file.provenance.made_from == given.digests("images", "erm", "masks", "features")
        assert file.provenance.params == {"training": 5, "mistakes": 4, "seed": 0}
        table = by_group(given.file("images"), given.file("masks"), made_up.SPEC)
        assert [row["n"] for row in file.attribute("coverage")] == [row.n for row in table]


def test_none_are_asked_for(artefacts: Project, tmp_path: Path) -> None:
    run(artefacts, tmp_path / "examples.h5", 0, 0)
    with graph.project(artefacts.data, examples=tmp_path / "examples.h5").open("examples") as given:
        file = given.file("examples")
        assert file["train/picture"].shape == (0, 5, 64, 64, 3)
        assert file["test/image"].shape == (0, 64, 64, 3)
        assert file["test/map"].shape == (0, 1024, 1, 1)
