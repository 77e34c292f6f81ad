"""Each method against an independent computation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.last_layer import afr, dfr, group_dro, llr, mac
from pipeline.last_layer.baselines import Cached, NotApplicableError
from pipeline.last_layer.heads import Heads, Views
from pipeline.last_layer.validation import BestSoFar, Validation
from pipeline.metrics import Grouping
from pipeline.params import parse
from tests.conftest import default_params

WIDTH, BATCH = 12, 8


def split(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features with a core and a spurious direction, labels, groups; the spurious one goes with the label in 80 %."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    attribute = np.where(rng.random(count) < 0.8, label, 1 - label)
    x = rng.normal(size=(count, WIDTH)).astype(np.float32) * np.linspace(0.5, 3, WIDTH, dtype=np.float32)
    x[:, 0] += 1.5 * label
    x[:, 1] += 4 * attribute
    return torch.from_numpy(x), torch.from_numpy(label), torch.from_numpy(2 * label + attribute)


@pytest.fixture
def cached() -> Cached:
    x, label, group = split(60, 0)
    features, val_label, val_group = split(80, 1)
    names = ["a_l", "a_w", "b_l", "b_w"]
    rng = np.random.default_rng(2)
    batch = np.stack([rng.permutation(60) // BATCH for _ in range(2)])
    generator = torch.Generator().manual_seed(0)
    erm = Heads(torch.randn(1, 1, 2, WIDTH, generator=generator) / 4, torch.zeros(1, 1, 2))
    return Cached(
        views=Views(x, label, torch.from_numpy(batch), torch.ones(60)),
        group=group,
        held_out=torch.arange(60) % 3 == 0,
        validation=Validation(features, val_label, Grouping("group", names, val_group.numpy())),
        erm=erm,
        params=parse(default_params(), "params.yaml").retrain.model_copy(
            update={"seeds": 2, "standardize": False, "epochs": 3, "average": 1}
        ),
    )


def test_dfr_agrees_with_scikit_learn_alone(cached: Cached) -> None:
    """One draw, one strength: a scaler and a logistic regression of scikit-learn, fitted on the same rows."""
    validation = cached.validation
    x, label, group = validation.features.numpy(), validation.label.numpy(), validation.grouping.index
    chosen = np.concatenate([np.flatnonzero(group == g)[:5] for g in range(4)])
    scaler = StandardScaler().fit(cached.views.original.numpy())
    expected = LogisticRegression(l1_ratio=1.0, C=0.3, solver="liblinear", random_state=0).fit(scaler.transform(x[chosen]), label[chosen])
    rows = dfr._rows(
        dfr.Scale.of(cached.views.original),
        cached.validation.features,
        cached.validation.label,
        cached.validation.grouping.index,
    )
    weight, bias = dfr.averaged(rows, [chosen], 0.3, 2)
    np.testing.assert_allclose(weight[1] - weight[0], expected.coef_[0], rtol=1e-3, atol=1e-4)
    fitted = make_pipeline(scaler, expected)
    np.testing.assert_array_equal((rows.x @ weight.T + bias).argmax(1), fitted.predict(x))


def test_dfr_s_heads_are_on_raw_features_and_average_the_draws(cached: Cached) -> None:
    """Repeated by hand, seed by seed: halves, draws, the choice of C, the average of 20."""
    heads = dfr.fit(cached, "validation")
    rows = dfr._rows(
        dfr.Scale.of(cached.views.original),
        cached.validation.features,
        cached.validation.label,
        cached.validation.grouping.index,
    )
    rng = np.random.default_rng(1)
    order = rng.permutation(80)
    judge, learn = rows.take(order[:40]), rows.take(order[40:])

    def draws(group: np.ndarray, count: int) -> list[np.ndarray]:
        smallest = np.bincount(group).min()
        return [np.concatenate([rng.choice(np.flatnonzero(group == g), smallest, replace=False) for g in range(4)]) for _ in range(count)]

    def mean_fit(part: dfr.Rows, chosen: list[np.ndarray], strength: float) -> tuple[np.ndarray, float]:
        fits = [
            LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=0).fit(part.x[d], part.label[d]) for d in chosen
        ]
        return np.mean([f.coef_[0] for f in fits], 0), float(np.mean([f.intercept_[0] for f in fits]))

    def worst(coef: np.ndarray, intercept: float) -> float:
        correct = (judge.x @ coef + intercept > 0) == judge.label
        return min(correct[judge.group == g].mean() for g in range(4))

    tenfold = draws(learn.group, 10)
    strength = max(dfr.STRENGTHS, key=lambda c: worst(*mean_fit(learn, tenfold, c)))
    coef, intercept = mean_fit(rows, draws(rows.group, 20), strength)
    assert heads.chosen["C"][1] == strength  # type: ignore[index]
    logits = heads.heads.logits(cached.validation.features)[1, 0]
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), rows.x @ coef + intercept, rtol=1e-3, atol=1e-3)


def test_balanced_draws_have_as_many_of_every_group() -> None:
    group = np.array([0] * 9 + [1] * 3 + [3] * 5)
    draw = dfr.balanced(group, np.random.default_rng(0))
    assert np.bincount(group[draw]).tolist() == [3, 3, 0, 3]
    assert len(set(draw)) == 9


def test_more_than_two_classes_go_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    x = rng.normal(size=(90, 5)) + 3 * np.eye(5)[label]
    rows = dfr.Rows(x, label, label)
    weight, bias = dfr.averaged(rows, [np.arange(90)], 1.0, 3)
    assert weight.shape == (3, 5)
    assert dfr.worst(rows, weight, bias) > 0.9


def test_afr_agrees_with_a_plain_loop(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    gamma, penalty, steps = 3.0, 0.2, 30
    rows = cached.held_out.nonzero()[:, 0].tolist()
    start = cached.erm.weight[0, 0], cached.erm.bias[0, 0]
    weights = []
    for row in rows:
        logits = start[0] @ cached.views.original[row] + start[1]
        same = sum(1 for other in rows if cached.views.label[other] == cached.views.label[row])
        weights.append(torch.exp(-gamma * logits.softmax(0)[cached.views.label[row]]) / same)
    total = sum(weights)
    w, b = (part.clone().requires_grad_() for part in start)
    optimizer = torch.optim.SGD([w, b], lr=afr.LR)
    for _ in range(steps):
        loss = penalty * ((w - start[0]).square().sum() + (b - start[1]).square().sum())
        for weight, row in zip(weights, rows, strict=True):
            loss = loss + weight / total * F.cross_entropy((w @ cached.views.original[row] + b)[None], cached.views.label[row, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    class Last(BestSoFar):
        def offer(self, epoch: int, heads: Heads) -> torch.Tensor:
            self.heads = heads
            return torch.empty(0)

    x, label = cached.views.original[rows], cached.views.label[rows]
    probability = cached.erm.logits(x)[0, 0].softmax(-1)[torch.arange(len(rows)), label]
    grid = torch.stack([afr.row_weights(probability, label, g) for g in (1.0, gamma)])
    found = afr.descend(x, label, grid, torch.tensor([0.0, penalty]), cached.erm, Last(cached.validation), steps=steps).heads
    torch.testing.assert_close(found.weight[0, 1], w.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.bias[0, 1], b.detach(), rtol=1e-4, atol=1e-6)


def test_afr_with_equal_weights_is_plain_retraining_s_objective(cached: Cached) -> None:
    x, label = cached.views.original, cached.views.label
    equal = torch.full((1, 60), 1 / 60)
    loss = afr.objective(x, label, equal, torch.zeros(1), cached.erm, cached.erm)
    torch.testing.assert_close(loss[0], F.cross_entropy(cached.erm.logits(x)[0, 0], label))
    balanced = torch.cat([label[label == 0][:20], label[label == 1][:20]])
    torch.testing.assert_close(afr.row_weights(torch.rand(40), balanced, 0.0), torch.full((40,), 1 / 40))


def test_afr_says_which_images_it_used(cached: Cached) -> None:
    assert afr.fit(cached).note == ""
    none = replace(cached, held_out=torch.zeros(60, dtype=torch.bool))
    assert "none was held out" in afr.fit(none).note
    start = cached.validation.scores(cached.validation.accuracy(cached.erm))[0].item()
    assert cached.validation.scores(cached.validation.accuracy(afr.fit(cached).heads))[0].item() >= start


def test_group_dro_with_one_group_is_plain_retraining(cached: Cached) -> None:
    one = replace(cached, group=torch.zeros(60, dtype=torch.int64))
    plain, robust = llr.fit(one, "none"), group_dro.fit(one)
    torch.testing.assert_close(robust.heads.weight, plain.heads.weight)
    torch.testing.assert_close(robust.heads.bias, plain.heads.bias)


def test_group_dro_s_weights_grow_with_the_loss_of_a_group() -> None:
    """Against the update written out for one batch."""
    group = torch.tensor([0, 0, 1, 2])
    loss = torch.tensor([1.0, 3.0, 0.5, 9.0])
    rows = torch.tensor([[0, 1, 2, -1]])
    weights = group_dro.GroupWeights(group, eta=0.1)
    found = weights(loss.view(1, 1, 4, 1), torch.empty(0), torch.ones(1, 1), rows)
    q = np.exp(0.1 * np.array([2.0, 0.5, 0.0]))
    q /= q.sum()
    assert (found.flatten() * loss).sum().item() == pytest.approx(q[0] * 2.0 + q[1] * 0.5)
    assert found.flatten().tolist() == pytest.approx([q[0] / 2, q[0] / 2, q[1], 0.0])
    assert weights.weight is not None
    np.testing.assert_allclose(weights.weight[0, 0].numpy(), q, rtol=1e-6)


def test_llr_is_mac_without_interventions(cached: Cached) -> None:
    found = llr.fit(cached, "none").heads
    expected = mac.fit(cached.views, cached.validation, cached.erm, cached.params, [0.0], [0.0], [0, 1]).heads
    assert torch.equal(found.weight, expected.weight)


@pytest.mark.parametrize(
    "fit", [lambda c: dfr.fit(c, "validation"), lambda c: dfr.fit(c, "training"), group_dro.fit], ids=["dfr", "dfr_train", "group_dro"]
)
def test_methods_that_need_groups_say_so(cached: Cached, fit: Callable[[Cached], object]) -> None:
    by_class = replace(cached.validation, grouping=Grouping("class", ["a", "b"], cached.validation.label.numpy()))
    with pytest.raises(NotApplicableError, match="needs the spurious attribute of every"):
        fit(replace(cached, group=None, validation=by_class))
