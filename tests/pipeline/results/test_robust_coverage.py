import numpy as np
import pytest

from pipeline.metrics import Grouping
from pipeline.results.robust_coverage import area, curve, envelope, robust_coverage

NAMES = ["a", "b", "c", "d", "empty"]


def made(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Grouping]:
    """Logits (60, C), labels, and groups of which one is empty."""
    rng = np.random.default_rng(seed)
    label = np.arange(60) % classes
    logits = rng.normal(size=(60, classes)) + np.eye(classes)[label]
    return logits, label, Grouping("group", NAMES, rng.integers(0, 4, 60))


def points_of(
    logits: np.ndarray, label: np.ndarray, grouping: Grouping, shifts: np.ndarray
) -> set[tuple[float, float]]:
    """Mean and worst-group accuracy of every shift (K, C), one after another."""
    found = set()
    for shift in shifts:
        right = (logits + shift).argmax(1) == label
        worst = min(right[grouping.index == g].mean() for g in np.unique(grouping.index))
        found.add((round(right.mean(), 9), round(worst, 9)))
    return found


def test_two_classes_have_all_points_that_scaling_can_give() -> None:
    logits, label, grouping = made(2)
    every = np.stack([np.zeros(40001), np.linspace(-9, 9, 40001)], 1)
    found = curve(logits, label, grouping)
    assert {tuple(point) for point in found.round(9)} == points_of(logits, label, grouping, every)
    assert found.shape == (61, 2)  # a point between any two of the 60 thresholds, and one beyond each end


def test_rows_that_are_alike_change_together() -> None:
    logits, label = np.zeros((4, 2)), np.array([0, 0, 0, 1])
    found = curve(logits, label, Grouping("class", ["0", "1"], label))
    assert found.tolist() == [[0.75, 0], [0.25, 0]]


def test_the_points_of_more_classes_can_be_had() -> None:
    logits, label, grouping = made(3)
    one = np.linspace(-3, 3, 61)
    grid = np.stack(np.meshgrid([0.0], one, one), -1).reshape(-1, 3)
    every = np.array(sorted(points_of(logits, label, grouping, grid)))
    found = robust_coverage(logits, label, grouping)
    assert found <= area(envelope(every)) + 0.02  # the grid is coarse
    ((mean, worst),) = points_of(logits, label, grouping, np.zeros((1, 3)))
    assert found > mean * worst
    assert found > 0.9 * area(envelope(every))


def test_the_envelope_is_what_no_other_point_beats() -> None:
    points = np.array([[0.5, 0.5], [0.9, 0.2], [0.6, 0.5], [0.7, 0.1], [0.6, 0.4], [0.9, 0.1]])
    assert envelope(points).tolist() == [[0.6, 0.5], [0.9, 0.2]]
    assert area(envelope(points)) == pytest.approx(0.6 * 0.5 + 0.3 * 0.2)


def test_the_area_is_the_papers_sum_over_thresholds() -> None:
    logits, label, grouping = made(2, seed=3)
    mean, worst = curve(logits, label, grouping).T
    slices = []
    for threshold in (np.arange(10000) + 0.5) / 10000:
        reached = worst[mean >= threshold]
        slices.append(reached.max() if len(reached) else 0.0)
    assert robust_coverage(logits, label, grouping) == pytest.approx(np.mean(slices), abs=1e-4)


def test_its_ends() -> None:
    label = np.arange(8) % 2
    by_class = Grouping("class", ["0", "1"], label)
    assert robust_coverage(3.0 * np.eye(2)[label], label, by_class) == 1
    assert robust_coverage(np.zeros((8, 2)), label, by_class) == 0
    scaled = np.eye(2)[label] + [0, 50]  # all are taken for class 1, but only for want of a scale
    assert robust_coverage(scaled, label, by_class) == 1
