import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from pipeline.last_layer import heads
from pipeline.last_layer.heads import Adam, Heads, Scale, Views
from pipeline.method import pairing

M, D, R, CLASSES, BATCH = 46, 7, 3, 3, 8
SOLVER = Adam(epochs=4, lr=0.05, lr_step=2, lr_gamma=0.5)
ALPHA, BETA = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([3.0, 0.0, 0.5])


@pytest.fixture
def views() -> Views:
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, M)
    draws = [pairing.draw(label, BATCH, 0, r) for r in range(R)]
    tables = (rng.normal(size=shape).astype(np.float32) + label[:, None] * 0.3 for shape in ((M, D), (R, M, D), (R, M, D)))
    original, masked, combined = (torch.from_numpy(table.astype(np.float32)) for table in tables)
    batch = torch.from_numpy(np.stack([draw.batch for draw in draws])).long()
    table = torch.cat([original, masked.flatten(0, 1), combined.flatten(0, 1)])
    return Views(table, torch.from_numpy(label), batch, torch.ones(M))


@pytest.fixture
def start(sample) -> Heads:  # type: ignore[no-untyped-def]
    return Heads(sample(1, 1, CLASSES, D) - 0.5, sample(1, 1, CLASSES) - 0.5)


def fit(
    views: Views, start: Heads, alpha: torch.Tensor, beta: torch.Tensor, seeds: list[int], l2: float = 0.01
) -> tuple[Heads, torch.Tensor]:
    kept: list[tuple[Heads, torch.Tensor]] = []
    heads.fit_adam(
        views, alpha, beta, seeds, start, l2, SOLVER, lambda _e, h, loss: kept.append((Heads(h.weight.clone(), h.bias.clone()), loss))
    )
    return kept[-1][0], torch.stack([loss for _, loss in kept])


def one_at_a_time(views: Views, start: Heads, alpha: float, beta: float, seed: int, l2: float) -> tuple[nn.Linear, list[float]]:
    """Equation 6 with nn.Linear, F.cross_entropy and a loop over the draw's batches."""
    head = nn.Linear(D, CLASSES)
    with torch.no_grad():
        head.weight.copy_(start.weight[0, 0])
        head.bias.copy_(start.bias[0, 0])
    masked, combined = views.interventions
    optimizer = torch.optim.Adam(head.parameters(), lr=SOLVER.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, SOLVER.lr_step, SOLVER.lr_gamma)
    epochs = []
    for epoch in range(SOLVER.epochs):
        draw = heads.draw_of(seed, epoch, R)
        losses = []
        for number in heads.batch_order(seed, epoch, -(-M // BATCH)):
            rows = (views.batch[draw] == number).nonzero()[:, 0]
            y = views.label[rows]
            terms = [F.cross_entropy(head(x), y) for x in (views.original[rows], masked[draw, rows], combined[draw, rows])]
            loss = terms[0] + alpha * terms[1] + beta * terms[2] + l2 * head.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        epochs.append(float(np.mean(losses)))
    return head, epochs


def test_many_heads_at_once_equal_one_at_a_time(views: Views, start: Heads) -> None:
    seeds = [0, 1, 4]
    fitted, loss = fit(views, start, ALPHA, BETA, seeds)
    for s, seed in enumerate(seeds):
        for k in range(len(ALPHA)):
            head, losses = one_at_a_time(views, start, float(ALPHA[k]), float(BETA[k]), seed, 0.01)
            assert torch.allclose(fitted.weight[s, k], head.weight, atol=1e-5)
            assert torch.allclose(fitted.bias[s, k], head.bias, atol=1e-5)
            np.testing.assert_allclose(loss[:, s, k], losses, rtol=1e-5)


def test_seeds_differ_and_repeat(views: Views, start: Heads) -> None:
    fitted, _ = fit(views, start, ALPHA, BETA, [0, 1])
    again, _ = fit(views, start, ALPHA, BETA, [0, 1])
    assert torch.equal(fitted.weight, again.weight)
    assert not torch.equal(fitted.weight[0], fitted.weight[1])


def test_lbfgs_equals_scikit_learn(views: Views) -> None:
    l2, alpha, beta = 0.02, 2.0, 3.0
    found, loss = heads.fit_lbfgs(views, alpha, beta, CLASSES, l2)
    x = np.concatenate([views.original, *views.interventions.flatten(1, 2)])
    y = np.tile(views.label, 1 + 2 * R)
    weight = np.concatenate([np.full(M, 1 / M), np.full(R * M, alpha / (R * M)), np.full(R * M, beta / (R * M))])
    # scikit-learn minimises C Σ weight · CE + ½ Σ W²
    expected = LogisticRegression(C=1 / (2 * l2), tol=1e-7, max_iter=5000, solver="newton-cg").fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(found.weight[0, 0], expected.coef_, atol=2e-4)
    shift = found.bias[0, 0] - torch.from_numpy(expected.intercept_)  # softmax leaves a common shift of the biases free
    assert (shift - shift.mean()).abs().max() < 5e-4
    assert loss > 0


def test_balanced_class_weights_give_every_class_the_same_total() -> None:
    label = torch.tensor([0, 0, 0, 1])
    weight = heads.class_weights(label, 2, "balanced")
    assert weight[label == 0].sum() == weight[label == 1].sum() == 2
    assert heads.class_weights(label, 2, "none").tolist() == [1, 1, 1, 1]


def test_a_head_means_the_same_on_raw_and_on_standardised_features(views: Views, start: Heads) -> None:
    scale = Scale.of(views.original)
    scaled = scale.views(views)
    assert torch.allclose(scaled.original.mean(0), torch.zeros(D), atol=1e-6)
    assert torch.allclose(scaled.original.std(0, correction=0), torch.ones(D), atol=1e-6)
    there = scale.into(start)
    assert torch.allclose(there.logits(scaled.interventions[0, 0]), start.logits(views.interventions[0, 0]), atol=1e-5)
    assert torch.allclose(scale.out_of(there).weight, start.weight, atol=1e-6)
    assert torch.allclose(scale.out_of(there).bias, start.bias, atol=1e-6)


def test_a_constant_feature_is_left_alone() -> None:
    assert Scale.of(torch.ones(5, 2)).deviation.tolist() == [1, 1]
