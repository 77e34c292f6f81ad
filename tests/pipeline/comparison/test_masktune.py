import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import graph
from pipeline.comparison.jtt import jtt
from pipeline.comparison.masktune import highest, masktune
from pipeline.network.classifier import Classifier
from pipeline.params.jtt import JttParams
from pipeline.params.masktune import MaskTuneParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Project
from tests import made_up, tiny
from tests.cached import AUTO
from tests.conftest import restate

JTT = JttParams(first_epochs=1, upweight=3, epochs=1, lr=0.02, weight_decay=0.01)
PARAMS = MaskTuneParams(sigmas=0.5, lr=0.001)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Images, ERM, and MaskTune's model."""
    made = made_up.write(tmp_path_factory.mktemp("masktune"))
    tiny.train_erm(made)
    with made.open("images", "erm") as given:
        masktune(given, made.path("masktune"), PARAMS, AUTO, tiny.context(made.data))
    return made


def test_it_masks_what_is_above_the_mean_by_two_deviations() -> None:
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    for found, scores in zip(highest(maps, 2.0), maps.numpy(), strict=True):
        np.testing.assert_array_equal(found.numpy(), scores > scores.mean() + 2 * scores.std())
    assert not highest(torch.zeros(1, 4, 4), 2.0).any()


def test_it_starts_from_erm_and_trains_one_epoch(project: Project) -> None:
    with project.open("images", "erm", "masktune") as given:
        erm, tuned = given.model("erm").read(), given.model("masktune").read()
        history = (given.model("masktune").path / "history.csv").read_text()
    change = max(float(np.abs(tuned[name] - erm[name]).max()) for name in erm if name.endswith("weight"))
    assert 0 < change < 0.1
    assert len(history.splitlines()) == 2


def test_it_writes_a_model_and_a_row_of_the_comparison(project: Project) -> None:
    with project.open("images", "erm", "masktune") as given:
        model = given.model("masktune")
        assert model.spec == given.model("erm").spec
        assert model.provenance.made_from == given.digests("images", "erm")
    row = json.loads((model.path / "metrics.json").read_text())
    assert (row["title"], row["sign"], row["seeds"], row["chosen"]) == ("MaskTune", "✗", 1, {"sigmas": 0.5})
    assert 0 <= row["test"]["worst_group"]["mean"] <= 1
    assert not any((project.data / "scratch").iterdir())


def test_it_sees_the_group_labels_that_erm_saw(project: Project, tmp_path: Path) -> None:
    """Their best epoch by groups made ERM; no label is read after that."""
    shutil.copytree(project.data, tmp_path / "data")
    chosen = graph.project(tmp_path / "data")
    restate(chosen.path("erm"), lambda about: about["params"]["train"].update(select="best"))
    by_errors = SelectionParams(criterion="soft_errors")
    with chosen.open("images", "erm") as given:
        masktune(given, chosen.path("masktune"), PARAMS, by_errors, tiny.context(tmp_path))
        jtt(given, chosen.path("jtt"), JTT, by_errors, tiny.context(tmp_path))
    for name in ("masktune", "jtt"):
        row = json.loads((chosen.path(name) / "metrics.json").read_text())
        assert (row["labels"], row["sign"]) == ("validation, to choose", "✓")
        assert row["criterion"] == "soft_errors"


def test_it_trains_on_images_without_the_highest_part_of_their_map(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every input of the epoch is the input grid with some pixels black, and nothing else changed."""
    seen: list[torch.Tensor] = []
    training: list[bool] = []
    original = Classifier.input

    def remember(self: Classifier, grid: torch.Tensor) -> torch.Tensor:
        seen.append(grid)
        training.append(self.training)
        return original(self, grid)

    monkeypatch.setattr(Classifier, "input", remember)
    with project.open("images", "erm") as given:
        masktune(given, tmp_path / "masktune", PARAMS, AUTO, tiny.context(tmp_path))
    # For each batch of the epoch ERM looks, and the new model is trained. Validation comes after.
    steps = 2 * sum(training)
    grids, inputs = seen[0:steps:2], seen[1:steps:2]
    assert training[:steps] == [False, True] * (steps // 2)
    assert sum(map(len, inputs)) == 16
    for grid, masked in zip(grids, inputs, strict=True):
        black = (masked == 0).all(1)
        assert 0.05 < black.float().mean() < 0.6
        assert torch.equal(torch.where(black[:, None], 0, grid), masked)
