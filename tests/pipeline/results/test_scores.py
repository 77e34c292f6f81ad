from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.results.scores import (
    _auroc,
    basic_interval,
    head_scores,
    quality,
    scores,
    worst_group_interval,
)
from pipeline.store import FittedHeads
from tests import cached


def test_quality_against_definitions() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    logits = rng.normal(size=(400, 2)) + 1.5 * np.eye(2)[label]
    found = quality(logits, label)
    predicted = logits.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, predicted))
    score = logits[:, 1] - logits[:, 0]
    pairs = score[label == 1][:, None] > score[label == 0][None]
    assert found["auroc"] == pytest.approx(pairs.mean())
    confidence = softmax(logits, axis=1).max(1)
    expected = 0.0
    for low in np.arange(15) / 15:
        rows = (confidence >= low) & (confidence < low + 1 / 15)
        if rows.any():
            expected += rows.mean() * abs((predicted == label)[rows].mean() - confidence[rows].mean())
    assert found["ece"] == pytest.approx(expected)


def test_auroc_is_sklearn_s_ties_included() -> None:
    rng = np.random.default_rng(0)
    for levels in (2, 7, 10**6):
        truth, score = rng.integers(0, 2, 300), rng.integers(0, levels, 300) / levels
        assert _auroc(score, truth) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)


def test_auroc_is_left_out_where_it_has_no_meaning() -> None:
    assert "auroc" not in quality(np.random.default_rng(0).normal(size=(9, 3)), np.arange(9) % 3)
    assert "auroc" not in quality(np.random.default_rng(0).normal(size=(9, 2)), np.zeros(9, np.int64))


def test_a_sure_classifier_that_is_right_is_calibrated() -> None:
    label = np.arange(10) % 2
    assert quality(50.0 * np.eye(2)[label], label)["ece"] == pytest.approx(0, abs=1e-9)


def test_the_interval_is_the_binomial_s_for_one_group() -> None:
    correct = np.arange(100)[None] < 80
    low, high = worst_group_interval(correct, np.zeros(100, np.int64), resamples=20000)
    assert (low, high) == (pytest.approx(0.73, abs=0.011), pytest.approx(0.88, abs=0.011))


def test_heads_are_judged_on_the_same_resampled_images() -> None:
    """Two heads that are right about complementary halves always average one half."""
    first = np.arange(100) < 50
    low, high = worst_group_interval(np.stack([first, ~first]), np.zeros(100, np.int64))
    assert low == high == pytest.approx(0.5)


def test_the_interval_is_that_of_a_plain_loop() -> None:
    """Three even groups, two heads: what is resampled strays down, and so the interval reaches up."""
    correct, group = np.random.default_rng(1).random((2, 150)) < 0.8, np.repeat([0, 3, 4], 50)
    rng, resampled = np.random.default_rng(2), []

    def worst(rows: NDArray[np.int64]) -> float:
        return float(np.mean([min(head[rows][group == g].mean() for g in (0, 3, 4)) for head in correct]))

    here = worst(np.arange(150))
    for _ in range(2000):
        resampled.append(
            worst(np.concatenate([rng.choice(np.flatnonzero(group == g), 50) for g in (0, 3, 4)]))
        )
    expected = [2 * here - np.percentile(resampled, end) for end in (97.5, 2.5)]
    assert worst_group_interval(correct, group) == pytest.approx(expected, abs=0.011)
    assert here - expected[0] < expected[1] - here


def test_the_interval_stays_between_its_ends_without_rounding_errors() -> None:
    assert basic_interval(0.9, np.array([0.5, 0.6]))[1] == 1.0
    assert basic_interval(0.1 + 0.2, np.full(9, 0.6), least=-1.0) == (0.0, 0.0)
    assert basic_interval(-0.9, np.array([-0.4, -0.9]), least=-1.0)[0] == -1.0


def test_scores_of_several_heads_are_those_of_each(tmp_path: Path) -> None:
    """Means and spreads of accuracy and quality, from features of a project and by hand."""
    project = cached.write(tmp_path)
    rng = np.random.default_rng(0)
    heads = FittedHeads(
        rng.normal(size=(3, 2, cached.WIDTH)).astype(np.float32), np.zeros((3, 2), np.float32)
    )
    with project.open("images", "features") as given:
        found = head_scores(given, heads, "test")
        features = given.file("features")
        x, label, attribute = (features[f"test/{name}"][:] for name in ("original", "label", "attribute"))
        assert scores(heads.logits(x), label, given.grouping("test"), given.grouping("train")) == found
    logits = np.stack([x @ weight.T for weight in heads.weight])
    correct = logits.argmax(-1) == label
    for g, name in enumerate(cached.GROUPS):
        accuracy = correct[:, 2 * label + attribute == g].mean(1)
        assert found["groups"][name]["mean"] == pytest.approx(accuracy.mean())
        assert found["groups"][name]["std"] == pytest.approx(accuracy.std(ddof=1))
    eces = [quality(each, label)["ece"] for each in logits]
    assert found["ece"]["mean"] == pytest.approx(np.mean(eces))
    low, high = worst_group_interval(correct, 2 * label + attribute)
    assert found["worst_group_interval"] == {"low": low, "high": high}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_have_no_metrics(bad: float) -> None:
    logits, label = np.zeros((1, 4, 2)), np.array([0, 1, 0, 1])
    logits[0, 3, 1] = bad
    grouping = Groups(("a", "b"), ()).grouping(label, label)
    with pytest.raises(MacError, match="the logits of a head are NaN or infinite; lower its learning rate"):
        scores(logits, label, grouping, grouping)
