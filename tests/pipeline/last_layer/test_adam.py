from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.last_layer import adam
from pipeline.last_layer.adam import NotFiniteError, fit_adam
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.table import Resident
from pipeline.last_layer.views import Views
from pipeline.params.fit import FitParams
from pipeline.setting import Setting
from tests.cached import BATCH, batches, fit_params, interventions, originals

PARAMS = fit_params(epochs=4, lr=0.05, lr_step=2, lr_gamma=0.5)
ALPHAS, BETAS, L2S = [2.0, 0.0, 1.0], [3.0, 0.0, 0.5], [0.01, 0.0, 0.2]
SETTINGS = list(map(Setting, ALPHAS, BETAS, L2S))


def fit(
    views: Views, start: Heads, seeds: list[int], params: FitParams = PARAMS
) -> tuple[Heads, torch.Tensor]:
    """The heads after the last epoch, and the losses of all epochs (epochs, S, K)."""
    losses: list[torch.Tensor] = []
    fitted = start

    def after_epoch(_epoch: int, heads: Heads, loss: torch.Tensor) -> None:
        nonlocal fitted
        fitted = Heads(heads.weight.clone(), heads.bias.clone())
        losses.append(loss)

    fit_adam(views, SETTINGS, seeds, start, params, after_epoch)
    return fitted, torch.stack(losses)


def one_at_a_time(
    views: Views, start: Heads, alpha: float, beta: float, l2: float, seed: int
) -> tuple[nn.Linear, list[float]]:
    """Equation 6 with nn.Linear, F.cross_entropy and a loop over the draw's batches."""
    classes, width = start.weight.shape[-2:]
    head = nn.Linear(width, classes)
    with torch.no_grad():
        head.weight.copy_(start.weight[0, 0])
        head.bias.copy_(start.bias[0, 0])
    masked, combined = interventions(views)
    among = views.intervention_weight > 0
    weight = len(among) / among.sum()
    optimizer = torch.optim.Adam(head.parameters(), lr=PARAMS.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, PARAMS.lr_step, PARAMS.lr_gamma)
    x, batch, epochs = originals(views), batches(views), []
    for epoch in range(PARAMS.epochs):
        draw = adam.draw_of(seed, epoch, len(batch))
        losses = []
        for number in adam.batch_order(seed, epoch, -(-len(views.label) // BATCH)):
            rows = (batch[draw] == number).nonzero()[:, 0]
            loss = F.cross_entropy(head(x[rows]), views.label[rows])
            some = rows[among[rows]]
            for term, phi in ((alpha, masked[draw, some]), (beta, combined[draw, some])):
                each = F.cross_entropy(head(phi), views.label[some], reduction="sum")
                loss = loss + term * weight * each / len(rows)
            loss = loss + l2 * head.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        epochs.append(float(np.mean(losses)))
    return head, epochs


@pytest.mark.parametrize("share", [1, 0.4])
def test_many_heads_at_once_equal_one_at_a_time(views: Views, start: Heads, share: float) -> None:
    """Also if some rows alone are masked and combined."""
    seeds = [0, 1, 4]
    among = np.random.default_rng(4).random(len(views.label)) < share
    views = replace(views, intervention_weight=torch.from_numpy(among / among.mean()).float())
    fitted, loss = fit(views, start, seeds)
    for s, seed in enumerate(seeds):
        for k, (alpha, beta, l2) in enumerate(zip(ALPHAS, BETAS, L2S, strict=True)):
            head, losses = one_at_a_time(views, start, alpha, beta, l2, seed)
            assert torch.allclose(fitted.weight[s, k], head.weight, atol=1e-5)
            assert torch.allclose(fitted.bias[s, k], head.bias, atol=1e-5)
            np.testing.assert_allclose(loss[:, s, k], losses, rtol=1e-5)


def test_seeds_differ_and_repeat(views: Views, start: Heads) -> None:
    fitted, _ = fit(views, start, [0, 1])
    again, _ = fit(views, start, [0, 1])
    assert torch.equal(fitted.weight, again.weight)
    assert not torch.equal(fitted.weight[0], fitted.weight[1])


def test_a_loss_that_is_not_finite_names_epoch_batch_and_seed(views: Views, start: Heads) -> None:
    assert isinstance(views.table, Resident)
    views.table.values[9] = float("inf")  # an original: every seed sees it in its first epoch
    number = int(batches(views)[adam.draw_of(4, 0, 3), 9])
    batch = 1 + adam.batch_order(4, 0, -(-len(views.label) // BATCH)).tolist().index(number)
    with pytest.raises(NotFiniteError, match=rf"the loss is (nan|inf) in epoch 1, batch {batch}, seed 4"):
        fit(views, start, [4])


def test_rows_weigh_as_much_as_they_are_told_to(views: Views, start: Heads) -> None:
    """Two of a row is a row of weight two, where the batch's size stays the same."""
    found = []

    def weigh(
        loss: torch.Tensor, share: torch.Tensor, term_weight: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        found.append((loss, share, term_weight, rows))
        return adam.mean_of_batch(loss, share, term_weight, rows)

    fit_adam(views, SETTINGS, [0], start, fit_params(epochs=1), lambda *_: None, weigh)
    loss, share, term_weight, rows = found[-1]
    assert loss.shape == (1, 3, BATCH, 3)
    assert torch.equal(term_weight, torch.tensor([[1.0, 1.0, 1.0], ALPHAS, BETAS]))
    assert torch.equal(share > 0, (rows >= 0)[:, None].expand(-1, 3, -1))
    assert sum(int((rows >= 0).sum()) for *_, rows in found) == len(views.label)
    for _, share, _, _ in found:
        assert share.sum(2)[0].tolist() == pytest.approx([1, 1, 1])
