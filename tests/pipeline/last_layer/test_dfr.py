from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.last_layer import dfr
from pipeline.last_layer.logistic import STRENGTHS, Penalty
from pipeline.last_layer.method import Cached, Method, NotApplicableError
from pipeline.last_layer.scale import Scale
from tests.cached import originals


def regression(strength: float, penalty: Penalty = "l1") -> LogisticRegression:
    if penalty == "l1":
        return LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=0)
    return LogisticRegression(C=strength, tol=1e-6, max_iter=1000)


@pytest.mark.parametrize("penalty", get_args(Penalty))
def test_it_agrees_with_scikit_learn_alone(cached: Cached, penalty: Penalty) -> None:
    """One subset and one strength, on the same rows as a scaler and a regression of scikit-learn."""
    validation = cached.validation
    x, label, group = validation.features.numpy(), validation.label.numpy(), validation.grouping.index
    chosen = np.concatenate([np.flatnonzero(group == g)[:5] for g in range(4)])
    scaler = StandardScaler().fit(originals(cached.views).numpy())
    expected = regression(0.3, penalty).fit(scaler.transform(x[chosen]), label[chosen])
    rows = dfr.rows_of_validation(cached, Scale.of(cached.views.originals()))
    weight, bias = dfr.averaged(rows, [chosen], 0.3, 2, penalty)
    np.testing.assert_allclose(weight[1] - weight[0], expected.coef_[0], rtol=1e-3, atol=1e-4)
    fitted = make_pipeline(scaler, expected)
    np.testing.assert_array_equal((rows.x @ weight.T + bias).argmax(1), fitted.predict(x))


@pytest.mark.parametrize(("method", "penalty"), [(dfr.METHOD, "l1"), (dfr.L2, "l2")])
def test_heads_are_on_raw_features_and_average_the_subsets(
    cached: Cached, method: Method, penalty: Penalty
) -> None:
    """Repeated by hand for seed 1: halves, subsets, the choice of C, the average of 20."""
    heads = method.fit(cached)
    rows = dfr.rows_of_validation(cached, Scale.of(cached.views.originals()))
    rng = np.random.default_rng(1)
    order = rng.permutation(80)
    judge, learn = rows.take(order[:40]), rows.take(order[40:])

    def subset(group: NDArray[np.int64]) -> NDArray[np.int64]:
        smallest = np.bincount(group).min()
        members = [np.flatnonzero(group == g) for g in range(4)]
        return np.concatenate([rng.choice(each, smallest, replace=False) for each in members])

    def mean_fit(part: dfr.Rows, chosen: list[np.ndarray], strength: float) -> tuple[np.ndarray, float]:
        fits = [regression(strength, penalty).fit(part.x[d], part.label[d]) for d in chosen]
        return np.mean([f.coef_[0] for f in fits], 0), float(np.mean([f.intercept_[0] for f in fits]))

    def worst(coef: np.ndarray, intercept: float) -> float:
        correct = (judge.x @ coef + intercept > 0) == judge.label
        return float(min(correct[judge.group == g].mean() for g in range(4)))

    tenfold = [subset(learn.group) for _ in range(10)]
    tried = STRENGTHS if penalty == "l1" else (1.0, 0.1, 0.01)
    strength = max(tried, key=lambda c: worst(*mean_fit(learn, tenfold, c)))
    coef, intercept = mean_fit(rows, [subset(rows.group) for _ in range(20)], strength)
    assert heads.chosen["C"][1] == strength  # type: ignore[index]
    logits = heads.heads.logits(cached.validation.features)[1, 0]
    found = (logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose(found, rows.x @ coef + intercept, rtol=1e-3, atol=1e-3)


def test_it_has_a_head_for_each_seed_whatever_the_solver(cached: Cached) -> None:
    solved = cached.params.model_copy(update={"solver": "lbfgs"})
    for split in ("validation", "training"):
        found = dfr.fit(cached, split)
        again = dfr.fit(Cached(**{**vars(cached), "params": solved}), split)
        assert found.heads.bias.shape == (2, 1, 2)
        np.testing.assert_array_equal(found.heads.weight, again.heads.weight)


def test_a_subset_has_as_many_of_every_group() -> None:
    group = np.array([0] * 9 + [1] * 3 + [3] * 5)
    subset = dfr.balanced(group, np.random.default_rng(0))
    assert np.bincount(group[subset]).tolist() == [3, 3, 0, 3]
    assert len(set(subset)) == 9


def test_more_than_two_classes_go_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    x = rng.normal(size=(90, 5)) + 3 * np.eye(5)[label]
    rows = dfr.Rows(x, label, label)
    weight, bias = dfr.averaged(rows, [np.arange(90)], 1.0, 3)
    assert weight.shape == (3, 5)
    assert dfr.worst(rows, weight, bias) > 0.9


def test_rows_without_some_class_cannot_be_learnt_from() -> None:
    rows = dfr.Rows(np.zeros((4, 2)), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))
    with pytest.raises(NotApplicableError, match="has no image of some class"):
        dfr.averaged(rows, [np.array([0, 1])], 1.0, 2)
