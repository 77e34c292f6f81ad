from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.last_layer import evals, logistic
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.logistic import STRENGTHS
from pipeline.last_layer.method import Cached, NotApplicableError
from pipeline.last_layer.scale import Scale
from tests.cached import WIDTH, originals


def by_scikit_learn(cached: Cached, rows: np.ndarray, k: int, strength: float) -> Pipeline:
    """Repeated from the paper: the k of highest and the k of lowest loss of each class, and a regression."""
    x, label = originals(cached.views).numpy(), cached.views.label.numpy()
    logits = x @ cached.erm.weight[0, 0].numpy().T + cached.erm.bias[0, 0].numpy()
    loss = -log_softmax(logits, axis=1)[np.arange(len(label)), label]
    chosen = []
    for c in range(cached.classes):
        of_class = sorted((row for row in rows if label[row] == c), key=lambda row: loss[row])
        chosen += [*of_class[:k], *of_class[-k:]]
    model = LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=0)
    scaler = StandardScaler().fit(x)
    last = model if cached.classes == 2 else OneVsRestClassifier(model)
    return make_pipeline(scaler, last.fit(scaler.transform(x[chosen]), label[chosen]))


def test_it_agrees_with_scikit_learn_alone(cached: Cached) -> None:
    """All settings, the choice among them, and the chosen head."""
    seen = replace(cached, unseen=torch.arange(60) >= 5)
    found = evals.fit(seen)
    rows, validation = np.flatnonzero(seen.unseen), cached.validation
    x, label = validation.features.numpy(), validation.label.numpy()
    scores = {}
    for k, strength in product((5, 10), STRENGTHS):
        correct = by_scikit_learn(seen, rows, k, strength).predict(x) == label
        groups = [correct[validation.grouping.index == g].mean() for g in range(4)]
        scores[k, strength] = (min(groups), correct.mean())
    best = max(scores, key=lambda setting: scores[setting])
    assert found.chosen == {"k": best[0], "C": best[1]}
    logits = found.heads.logits(validation.features)[0, 0]
    expected = by_scikit_learn(seen, rows, *best).decision_function(x)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert found.note == ""


def test_more_than_two_classes_go_one_against_the_rest(three: Cached) -> None:
    found = evals.fit(three)
    k, strength = found.chosen["k"], found.chosen["C"]
    expected = by_scikit_learn(three, np.arange(len(three.unseen)), k, strength)  # type: ignore[arg-type]
    x = three.validation.features
    np.testing.assert_array_equal(found.heads.logits(x)[0, 0].argmax(1), expected.predict(x.numpy()))
    assert "none was held out" in found.note


def test_the_hardest_and_the_easiest_of_each_class() -> None:
    loss = np.array([5, 1, 2, 9, 3, 3, 3, 0])
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert evals.hardest_and_easiest(loss, label, 1).tolist() == [1, 3, 7, 6]
    assert sorted(evals.hardest_and_easiest(loss, label, 2)) == list(range(8))


def test_no_row_is_both() -> None:
    assert evals.sizes(np.repeat([0, 1], [500, 40]), 2) == [5, 10, 20]
    assert evals.sizes(np.repeat([0, 1], [9, 7]), 2) == [3]
    with pytest.raises(NotApplicableError, match="two images of every class"):
        evals.sizes(np.repeat([0, 1], [9, 1]), 2)
    with pytest.raises(NotApplicableError, match="two images of every class"):
        evals.sizes(np.zeros(9, np.int64), 2)


def test_only_the_rows_that_are_fitted_are_standardised(
    three: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, whole = [], logistic.standardised

    def counted(features: torch.Tensor, scale: Scale) -> np.ndarray:
        counts.append(len(features))
        return whole(features, scale)

    monkeypatch.setattr(logistic, "standardised", counted)
    evals.fit(three)
    assert counts == [2 * 3 * 5]  # the only k that leaves no row twice; three classes


def test_too_many_classes_are_refused_before_any_fit(cached: Cached) -> None:
    erm = Heads(torch.zeros(1, 1, 21, WIDTH), torch.zeros(1, 1, 21))
    with pytest.raises(NotApplicableError, match="at most 20 classes, and here are 21"):
        evals.fit(replace(cached, erm=erm))
