import numpy as np
import pytest

from pipeline.metrics import Grouping
from pipeline.results import robust_coverage as module
from pipeline.results.robust_coverage import area, curve, envelope, robust_coverage, scores_of_shifts


def made(classes: int, seed: int = 0, rows: int = 60) -> tuple[np.ndarray, np.ndarray, Grouping]:
    """Logits (rows, C), labels, and two groups of each class besides an empty one."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % classes
    logits = rng.normal(size=(rows, classes)) + np.eye(classes)[label]
    names = [str(group) for group in range(2 * classes + 1)]
    return logits, label, Grouping("group", names, 2 * label + rng.integers(0, 2, rows))


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
    _, worst, mean = scores_of_shifts(logits, label, grouping, 1)
    points = points_of(logits, label, grouping, every)
    assert set(zip(mean.round(9), worst.round(9), strict=True)) == points
    assert mean.shape == (61,)  # a point between any two of the 60 thresholds, and one beyond each end
    np.testing.assert_allclose(curve(logits, label, grouping), envelope(np.array([*points])), atol=1e-9)


def test_rows_that_are_alike_change_together() -> None:
    logits, label = np.zeros((4, 2)), np.array([0, 0, 0, 1])
    _, worst, mean = scores_of_shifts(logits, label, Grouping("class", ["0", "1"], label), 1)
    assert mean.tolist() == [0.75, 0.25]
    assert worst.tolist() == [0, 0]


@pytest.mark.parametrize("moved", range(4))
def test_the_scores_of_every_shift_are_those_of_the_shifted_logits(moved: int) -> None:
    logits, label, grouping = made(4, seed=moved)
    logits = (4 * logits).round() / 4  # so rows share a threshold
    for shift, worst, mean in zip(*scores_of_shifts(logits, label, grouping, moved), strict=True):
        point = points_of(logits, label, grouping, shift * np.eye(4)[[moved]])
        assert point == {(round(mean, 9), round(worst, 9))}


def test_of_many_classes_those_of_the_worst_groups_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, class after class, with all logits: the same as with those of the scaled classes alone."""
    logits, label, grouping = made(14, seed=1, rows=280)
    right = logits.argmax(1) == label
    worst = [min(right[grouping.index == g].mean() for g in (2 * c, 2 * c + 1)) for c in range(14)]
    scaled = sorted(np.argsort(worst, kind="stable")[:10])
    moved, points, shapes = logits.copy(), [], []
    for c in [*scaled] * 2:
        shift, low, mean = scores_of_shifts(moved, label, grouping, c)
        points += [*zip(mean, low, strict=True)]
        moved[:, c] += shift[max(range(len(low)), key=lambda k, low=low, mean=mean: (low[k], mean[k], -k))]

    def counted(few: np.ndarray, *rest: object) -> object:
        shapes.append(few.shape)
        return scores_of_shifts(few, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "scores_of_shifts", counted)
    found = curve(logits, label, grouping)
    np.testing.assert_allclose(found, envelope(np.array(points)), rtol=1e-12)
    assert shapes == [(280, 11)] * 20
    assert robust_coverage(logits, label, grouping) > right.mean() * min(worst)


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
