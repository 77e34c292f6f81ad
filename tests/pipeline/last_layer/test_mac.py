from dataclasses import replace

import pytest
import torch

from pipeline.errors import MacError
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.table import Resident
from pipeline.last_layer.views import Views
from pipeline.setting import Setting
from tests.cached import fit_params, originals


@pytest.fixture
def whole(cached: Cached) -> Views:
    """The views of `cached` with masked and combined ones."""
    noise = torch.randn(4 * 60, 12, generator=torch.Generator().manual_seed(3))
    x = originals(cached.views)
    in_order = x[cached.views.order.flatten()]
    return replace(cached.views, table=Resident(torch.cat([x, torch.cat([in_order, in_order]) + noise])))


@pytest.mark.parametrize("changes", [{}, {"standardize": True}, {"solver": "lbfgs"}])
def test_many_settings_at_once_equal_one_at_a_time(
    cached: Cached, whole: Views, changes: dict[str, object]
) -> None:
    params = fit_params(l2=0.1, **changes)
    settings = [Setting(0, 3, 0.01), Setting(1, 0, 0.3), Setting(2, 1)]
    grid = mac.fit(whole, cached.validation, cached.erm, params, settings)
    assert grid.heads.bias.shape[:2] == (len(params.head_seeds), 3)
    for k, setting in enumerate(settings):
        number = params.model_copy(update={"l2": setting.strength(params.l2)})
        alone = mac.fit(whole, cached.validation, cached.erm, number, [setting._replace(l2=None)])
        torch.testing.assert_close(grid.heads.weight[:, k], alone.heads.weight[:, 0], atol=1e-5, rtol=1e-4)
        assert torch.equal(grid.epoch[:, k], alone.epoch[:, 0])


def test_a_head_is_the_mean_of_as_many_fits(cached: Cached, whole: Views) -> None:
    single = mac.fit(whole, cached.validation, cached.erm, fit_params(seeds=4), [Setting(1.0, 2.0)])
    pairs = mac.fit(whole, cached.validation, cached.erm, fit_params(seeds=2, average=2), [Setting(1.0, 2.0)])
    torch.testing.assert_close(pairs.heads.weight[:, 0], single.heads.weight[:, 0].view(2, 2, 2, -1).mean(1))
    torch.testing.assert_close(pairs.heads.bias[:, 0], single.heads.bias[:, 0].view(2, 2, 2).mean(1))
    assert torch.equal(pairs.epoch, single.epoch)
    assert pairs.history == single.history
    assert {row["seed"] for row in pairs.history} == {0, 1, 2, 3}


def test_the_history_has_the_best_epoch_that_is_kept(cached: Cached) -> None:
    fitted = mac.fit(
        cached.views, cached.validation, cached.erm, fit_params(epochs=6, lr=0.1), [Setting(0.0, 0.0)]
    )
    assert len(fitted.history) == 2 * 6
    worst, mean = cached.validation.scores(fitted.heads)
    for seed in (0, 1):
        rows = [row for row in fitted.history if row["seed"] == seed]
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
        best = max(rows, key=lambda row: (row["val_worst"], row["val_mean"]))  # of equal ones the first
        assert fitted.epoch[seed, 0] == best["epoch"]
        assert (worst[seed, 0], mean[seed, 0]) == (best["val_worst"], best["val_mean"])
        assert best["val_worst"] == min(best[f"val_{name}"] for name in cached.validation.grouping.names)


def test_the_minimum_is_one_head_whatever_the_seeds(cached: Cached) -> None:
    params = fit_params(solver="lbfgs", seeds=5, average=3)
    fitted = mac.fit(cached.views, cached.validation, cached.erm, params, [Setting(0.0, 0.0, 0.01)])
    assert fitted.heads.bias.shape == (1, 1, 2)
    assert fitted.epoch.tolist() == [[1]]
    assert [(row["seed"], row["epoch"]) for row in fitted.history] == [(0, 1)]


def test_heads_start_from_erm_or_from_zero(cached: Cached) -> None:
    def first_step(init: str, erm: Heads) -> torch.Tensor:
        params = fit_params(init=init, epochs=1, lr=1e-9, seeds=1)
        return mac.fit(cached.views, cached.validation, erm, params, [Setting(0.0, 0.0)]).heads.weight

    torch.testing.assert_close(first_step("erm", cached.erm), cached.erm.weight, atol=1e-6, rtol=0)
    assert first_step("zeros", cached.erm).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("changes", "remedy"), [({}, "lower retrain.lr"), ({"solver": "lbfgs"}, "raise retrain.l2")]
)
def test_a_loss_that_is_not_finite_is_one_line(
    cached: Cached, changes: dict[str, object], remedy: str
) -> None:
    split: HeldOutSplit = cached.validation
    assert isinstance(cached.views.table, Resident)
    cached.views.table.values[3] = float("nan")
    with pytest.raises(MacError, match=f"retrain: the loss is nan .*{remedy}"):
        mac.fit(cached.views, split, cached.erm, fit_params(**changes), [Setting(0.0, 0.0)])
