from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.last_layer.grid import fit_grid, scores_of_test_split
from pipeline.metrics import group_accuracy
from pipeline.params.sweep import SweepParams
from pipeline.setting import Setting
from tests import cached
from tests.cached import fit_params

SWEEP = SweepParams(alphas=[0, 1, 2], betas=[0, 3], pick="auto", default=(1, 3), l2s=[0], seeds=1, average=1)


def test_a_grid_has_every_pair_and_the_one_that_validation_prefers(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    with project.open("erm", "features") as given:
        features, erm = given.file("features"), given.model("erm").head()
        grid = fit_grid(features, erm, fit_params(), SWEEP, "auto", torch.device("cpu"))
        found = scores_of_test_split(features, grid.heads)
        x, label, attribute = (features[f"test/{name}"][:] for name in ("original", "label", "attribute"))
    assert grid.settings == [Setting(*pair) for pair in ((0, 0), (0, 3), (1, 0), (1, 3), (2, 0), (2, 3))]
    assert (grid.seeds, grid.criterion) == ([0, 1], "groups")
    assert grid.val.shape == found.shape == (2, 2, 6)
    worst, mean = grid.val.mean(1)
    assert grid.best == max(range(6), key=lambda k: (worst[k], mean[k], -k))
    assert grid.plain == 0
    for k in range(6):
        correct = grid.heads.fitted(k).logits(x).argmax(-1) == label
        np.testing.assert_allclose(found[1, :, k], correct.mean(1))
        np.testing.assert_allclose(found[0, :, k], group_accuracy(correct, 2 * label + attribute, 4).min(1))


def test_the_minimum_has_one_seed(tmp_path: Path) -> None:
    project = cached.write(tmp_path, unknown=("val",))
    with project.open("erm", "features") as given:
        features, erm = given.file("features"), given.model("erm").head()
        grid = fit_grid(features, erm, fit_params(solver="lbfgs", l2=0.1), SWEEP, "auto", torch.device("cpu"))
    assert (grid.seeds, grid.criterion, grid.val.shape) == ([0], "soft_errors", (2, 1, 6))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_auto_picks_what_a_loop_over_l2_picks(tmp_path: Path, solver: str) -> None:
    l2s, cpu = [0.01, 1.0, 0.1], torch.device("cpu")
    pairs = SWEEP.model_copy(update={"alphas": [1.0]})
    tried = pairs.model_copy(update={"l2s": l2s})
    with cached.write(tmp_path).open("erm", "features") as given:
        features, erm = given.file("features"), given.model("erm").head()
        grid = fit_grid(features, erm, fit_params(solver=solver, lr=0.1, l2="auto"), tried, "auto", cpu)
        found = {}
        for l2 in l2s:
            alone = fit_grid(features, erm, fit_params(solver=solver, lr=0.1, l2=l2), pairs, "auto", cpu)
            for k, (alpha, beta, _) in enumerate(alone.settings):
                found[alpha, beta, l2] = alone.val[:, :, k].mean(1)
                other = grid.heads.of_setting(grid.settings.index(Setting(alpha, beta, l2)))
                np.testing.assert_allclose(other.weight[:, 0], alone.heads.weight[:, k], atol=1e-4)
    assert len(found) == len(grid.settings) == 9
    assert grid.settings[grid.best] == max(grid.settings, key=lambda each: tuple(found[each]))
    plain = [each for each in grid.settings if each[:2] == (0, 0)]
    assert grid.settings[grid.plain] == max(plain, key=lambda each: tuple(found[each]))
