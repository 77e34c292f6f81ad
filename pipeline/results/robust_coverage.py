"""Worst-group against mean accuracy as classes are scaled, and its area (Seo & Han, WACV 2025).

A classifier's logits plus one number for each class, the log of the class's scale, are another classifier, at
no cost. All of them together show what can be had of a classifier: a high worst group, a high mean, or
something between. The robust coverage is the area below:

    ∫₀¹ max over scalings s with mean(s) ≥ c of worst(s) dc
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Accuracy, Grouping, prefer

ROUNDS = 2  # over all classes, if there are more than two
Points = NDArray[np.float64]  # (P, 2), the mean and the worst-group accuracy of P scalings


def robust_coverage(logits: NDArray[np.floating], label: NDArray[np.int64], grouping: Grouping) -> float:
    """The robust coverage of one classifier, in [0, 1]; arguments as in `curve`."""
    return area(envelope(curve(logits, label, grouping)))


def curve(logits: NDArray[np.floating], label: NDArray[np.int64], grouping: Grouping) -> Points:
    """The accuracies of scalings of a classifier.

    With two classes, these are all that a scaling can give. With more, they are those on the way to the best
    worst group, one class after another, so the area can only be too small.

    Args:
        logits: (N, C).
        label: (N,).
        grouping: the groups of the rows.
    """
    moved = logits.astype(np.float64)
    classes = moved.shape[1]
    found = []
    for c in [1] if classes == 2 else [*range(classes)] * ROUNDS:
        shift, worst, mean = _scores_of_shifts(moved, label, grouping, c)
        found.append(np.stack([mean, worst], 1))
        top = np.flatnonzero(worst == worst.max())
        moved[:, c] += shift[top[prefer(worst[top], mean[top])]]
    return np.concatenate(found)


def _scores_of_shifts(
    logits: NDArray[np.float64], label: NDArray[np.int64], grouping: Grouping, moved: int
) -> tuple[NDArray[np.float64], Accuracy, Accuracy]:
    """Worst-group and mean accuracy for every number that may be added to the logits of one class, (P,) each.

    The answer for a row is `moved` above the row's threshold, and its best other class below. So with the
    rows in the order of their thresholds, the number of right answers of each group is a running sum.
    """
    others = logits.copy()
    others[:, moved] = -np.inf
    rival = others.argmax(1)
    threshold = others.max(1) - logits[:, moved]
    order = threshold.argsort(kind="stable")
    gain = (label == moved).astype(np.float64) - (label == rival)
    right = np.zeros((len(label) + 1, len(grouping.names)))
    right[0] = np.bincount(grouping.index, label == rival, len(grouping.names))
    right[np.arange(1, len(label) + 1), grouping.index[order]] = gain[order]
    with np.errstate(invalid="ignore"):  # an empty group: NaN
        accuracy = right.cumsum(0) / grouping.count
    edges = np.concatenate([threshold[order[:1]] - 1, threshold[order], threshold[order[-1:]] + 1])
    apart = edges[1:] > edges[:-1]  # rows with the same threshold change together
    worst, mean = grouping.scores(accuracy[apart])
    return ((edges[1:] + edges[:-1]) / 2)[apart], worst, mean


def envelope(points: Points) -> Points:
    """The points that no other one beats in both accuracies, by rising mean and so by falling worst group."""
    by_mean = points[np.lexsort((-points[:, 1], -points[:, 0]))]  # the highest mean first
    highest = np.maximum.accumulate(by_mean[:, 1])
    better = np.concatenate([[True], highest[1:] > highest[:-1]])
    return np.flip(by_mean[better], 0)


def area(envelope: Points) -> float:
    """The area under an envelope: at each c in [0, 1], the highest worst group with a mean of at least c."""
    mean, worst = envelope.T
    return float((np.diff(mean, prepend=0.0) * worst).sum())
