from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer import afr
from pipeline.last_layer.best_so_far import BestSoFar
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import Cached
from pipeline.metrics import Accuracy
from tests.cached import originals


def by_a_plain_loop(
    cached: Cached, rows: list[int], gamma: float, penalty: float, steps: int
) -> list[Tensor]:
    """Weight (C, D) and bias (C,) after some steps of SGD, row by row."""
    x, label = originals(cached.views), cached.views.label
    start = cached.erm.weight[0, 0], cached.erm.bias[0, 0]
    weights = []
    for row in rows:
        probability = (start[0] @ x[row] + start[1]).softmax(0)[label[row]]
        same = sum(1 for other in rows if label[other] == label[row])
        weights.append(torch.exp(-gamma * probability) / same)
    total = sum(weights)
    w, b = (part.clone().requires_grad_() for part in start)
    optimizer = torch.optim.SGD([w, b], lr=afr.LR)
    for _ in range(steps):
        loss = penalty * ((w - start[0]).square().sum() + (b - start[1]).square().sum())
        for weight, row in zip(weights, rows, strict=True):
            loss = loss + weight / total * F.cross_entropy((w @ x[row] + b)[None], label[row, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [w.detach(), b.detach()]


def test_it_agrees_with_a_plain_loop(cached: Cached) -> None:
    class Last(BestSoFar):
        def offer(self, epoch: int, heads: Heads) -> Accuracy:
            self.heads = heads
            return np.empty(0)

    gamma, penalty, steps = 3.0, 0.2, 30
    rows = cached.unseen.nonzero()[:, 0].tolist()
    weight, bias = by_a_plain_loop(cached, rows, gamma, penalty, steps)
    x, label = originals(cached.views)[rows], cached.views.label[rows]
    probability = cached.erm.logits(x)[0, 0].softmax(-1)[torch.arange(len(rows)), label]
    weights = torch.stack([afr.row_weights(probability, label, g) for g in (1.0, gamma)])
    last = Last(cached.validation)
    afr.descend(
        lambda: iter(x.split(7)), label, weights, torch.tensor([0.0, penalty]), cached.erm, last, steps=steps
    )
    torch.testing.assert_close(last.heads.weight[0, 1], weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(last.heads.bias[0, 1], bias, rtol=1e-4, atol=1e-6)


def test_with_equal_weights_it_has_plain_retraining_s_objective(cached: Cached) -> None:
    x, label = originals(cached.views), cached.views.label
    equal = torch.full((1, 60), 1 / 60)
    onehot = F.one_hot(label, 2).T.float()
    loss = afr.weighted_loss(x, onehot, equal, cached.erm)
    torch.testing.assert_close(loss[0], F.cross_entropy(cached.erm.logits(x)[0, 0], label))
    balanced = torch.cat([label[label == 0][:20], label[label == 1][:20]])
    torch.testing.assert_close(afr.row_weights(torch.rand(40), balanced, 0.0), torch.full((40,), 1 / 40))


def test_it_says_which_images_it_used(cached: Cached) -> None:
    assert afr.fit(cached).note == ""
    assert "none was held out" in afr.fit(replace(cached, unseen=torch.zeros(60, dtype=torch.bool))).note


def test_validation_chooses_and_never_something_worse_than_erm(cached: Cached) -> None:
    found = afr.fit(cached)
    (worst,), (mean,) = (score[0] for score in cached.validation.scores(found.heads))
    (erm_worst,), (erm_mean,) = (score[0] for score in cached.validation.scores(cached.erm))
    assert (worst, mean) >= (erm_worst, erm_mean)
    assert found.heads.bias.shape == (1, 1, 2)
    assert found.chosen["gamma"] in afr.GAMMAS
    assert found.chosen["lambda"] in afr.LAMBDAS
    assert found.chosen["step"] in range(0, afr.STEPS + 1, afr.LOOK_EVERY)


def test_rows_that_erm_gets_wrong_weigh_more() -> None:
    weight = afr.row_weights(torch.tensor([0.9, 0.1]), torch.tensor([0, 0]), 2.0)
    assert weight.sum().item() == pytest.approx(1)
    assert (weight[1] / weight[0]).item() == pytest.approx(np.exp(1.6), rel=1e-5)
