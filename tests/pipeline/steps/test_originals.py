import numpy as np
import pytest
import torch

from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.project import Project
from pipeline.steps import originals as stage
from pipeline.store import SPLITS
from tests.conftest import edited
from tests.pipeline.steps import untrained
from tests.pipeline.steps.untrained import make_maps, make_originals


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with originals.h5; not to be changed."""
    project = untrained.write_project(tmp_path_factory.mktemp("project"))
    make_originals(project)
    return project


def test_they_are_the_features_of_the_images_one_by_one(made: Project) -> None:
    with made.open("images", "erm", "originals") as given:
        images, erm, found = given.file("images"), given.model("erm"), given.file("originals")
        model = classifier.load(erm.spec, erm.read(), torch.device("cpu"))
        assert found.provenance.made_from == given.digests("images", "erm")
        for code, split in enumerate(SPLITS):
            rows = np.flatnonzero(images["split"][:] == code)
            np.testing.assert_array_equal(found[f"{split}/row"][:], rows)
            for name in ("label", "attribute"):
                np.testing.assert_array_equal(found[f"{split}/{name}"][:], images[name][:][rows])
            for position in (0, 3, len(rows) - 1):
                grid = to_input_grid(torch.from_numpy(images["image"][rows[position]][None]), erm.spec)
                phi = model.features(normalize(grid, erm.spec.normalization))[0]
                np.testing.assert_allclose(found[f"{split}/original"][position], phi, rtol=1e-3, atol=1e-4)


def test_their_retraining_set_is_that_of_the_maps(project: Project) -> None:
    make_originals(project, balance="class")
    make_maps(project, balance="class")
    with project.open("maps", "originals") as given:
        rows = given.file("originals")["train/row"][:]
        np.testing.assert_array_equal(rows, given.file("maps")["row"][:])
    assert len(rows) == 48  # twice the dogs


def test_they_are_there_for_images_that_only_method_foreground_draws(project: Project) -> None:
    with edited(project.path("images")) as file:
        file["has_foreground"][:64] = np.arange(64) % 2 == 0
    make_originals(project, balance="class")
    for method in ("foreground", "xgradcam"):
        make_maps(project, balance="class", method=method)
        with project.open("images", "maps", "originals") as given:
            rows, known = given.file("maps")["row"][:], given.file("images")["has_foreground"][:]
            assert np.isin(rows, given.file("originals")["train/row"][:]).all()
        assert known[rows].all() == (method == "foreground")


def test_an_interrupted_run_goes_on_where_it_was(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one forward pass, which change no byte."""
    before, features, seen = project.path("originals").read_bytes(), Classifier.features, list[int]()
    monkeypatch.setattr(stage, "BATCHES", 1)

    def counted(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        if len(seen) == 4:
            seen.append(0)
            raise KeyboardInterrupt
        seen.append(len(x))
        return features(self, x)

    monkeypatch.setattr(Classifier, "features", counted)
    with pytest.raises(KeyboardInterrupt):
        make_originals(project)
    make_originals(project)
    assert seen == [32, 32, 6, 24, 0, 32]
    assert project.path("originals").read_bytes() == before
    assert not list((project.data / "scratch").iterdir())


def test_a_diverged_model_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "features", lambda _self, x: torch.full((len(x), 1024), np.inf))
    with pytest.raises(MacError, match=r"NaN or above 1e\+09; the model in .* has diverged"):
        make_originals(project)
