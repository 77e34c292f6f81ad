"""Worst-group against mean accuracy as classes are scaled, and its area (Seo & Han, WACV 2025).

A classifier's logits plus one number for each class, the log of the class's scale, are another classifier, at
no cost. All of them together show what can be had of a classifier: a high worst group, a high mean, or
something between. The robust coverage is the area below:

    ∫₀¹ max over scalings s with mean(s) ≥ c of worst(s) dc

With two classes it is exact. With more, it is a lower bound: only some scalings are tried.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Accuracy, Grouping, worst_classes

ROUNDS = 2  # over the scaled classes, if there are more than two classes
SCALED = 10  # classes at most
Points = NDArray[np.float64]  # (P, 2), the mean and the worst-group accuracy of P scalings


def robust_coverage(logits: NDArray[np.floating], label: NDArray[np.int64], grouping: Grouping) -> float:
    """The robust coverage of one classifier, in [0, 1]; arguments as in `curve`."""
    return area(curve(logits, label, grouping))


def curve(logits: NDArray[np.floating], label: NDArray[np.int64], grouping: Grouping) -> Points:
    """The envelope of the accuracies of scalings of a classifier.

    With two classes, these are all scalings. With more, they are those on the way to the best worst group,
    one class after another. With more than ten, only the ten classes of the worst groups are scaled. So the
    time is that of a few looks at the logits and of 20 sorts of N numbers at most.

    Args:
        logits: (N, C).
        label: (N,).
        grouping: the groups of the rows. All rows of a group have the same label, and count the same.
    """
    classes = logits.shape[1]
    right = np.bincount(grouping.index, logits.argmax(1) == label, len(grouping.names))
    with np.errstate(invalid="ignore"):  # an empty group: NaN
        accuracy = right / grouping.count
    scaled = worst_classes(accuracy, grouping, label, classes, SCALED)
    moved, own = _of_scaled(logits, label, scaled)
    found = np.empty((0, 2))
    for c in [1] if classes == 2 else [*range(len(scaled))] * ROUNDS:
        shift, worst, mean = scores_of_shifts(moved, own, grouping, c)
        found = envelope(np.concatenate([found, np.stack([mean, worst], 1)]))
        top = np.flatnonzero(worst == worst.max())
        moved[:, c] += shift[top[mean[top].argmax()]]
    return found


def _of_scaled(
    logits: NDArray[np.floating], label: NDArray[np.int64], scaled: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The logits of the scaled classes only, and of each row's best other class, if there are others.

    Returns:
        (N, scaled + 1) float64, and (N,) the column of the label; −1 if the label is none of the columns.
    """
    classes = logits.shape[1]
    column = np.full(classes, -1)
    column[scaled] = np.arange(len(scaled))
    own = column[label]
    if len(scaled) == classes:
        return logits.astype(np.float64), own
    rest = np.flatnonzero(column < 0)
    others = logits[:, rest]
    best = others.argmax(1)
    own[rest[best] == label] = len(scaled)
    kept = np.column_stack([logits[:, scaled], others[np.arange(len(label)), best]])
    return kept.astype(np.float64), own


def scores_of_shifts(
    logits: NDArray[np.float64], label: NDArray[np.int64], grouping: Grouping, moved: int
) -> tuple[NDArray[np.float64], Accuracy, Accuracy]:
    """Worst-group and mean accuracy for every number that may be added to the logits of one class, (P,) each.

    The answer for a row is `moved` above the row's threshold, and its best other class below. So with the
    rows in the order of their thresholds, the number of right answers of each group is a running sum.

    Args:
        logits: (N, C).
        label: (N,); −1 for a row that no class is right for.
        grouping: as in `curve`.
        moved: the class.

    Returns:
        The numbers that are added, one between any two thresholds; the worst and the mean accuracies.
    """
    others = logits.copy()
    others[:, moved] = -np.inf
    rival = others.argmax(1)
    threshold = others.max(1) - logits[:, moved]
    order = threshold.argsort(kind="stable")
    before = np.bincount(grouping.index, label == rival, len(grouping.names)).astype(np.float64)
    rises = label[order] == moved
    gain = rises.astype(np.float64) - (label == rival)[order]
    edges = np.concatenate([threshold[order[:1]] - 1, threshold[order], threshold[order[-1:]] + 1])
    apart = edges[1:] > edges[:-1]  # rows with the same threshold change together
    worst = _worst(gain, rises, grouping.index[order], before)
    mean = (before.sum() + np.concatenate([[0.0], gain.cumsum()])) / len(label)
    return ((edges[1:] + edges[:-1]) / 2)[apart], worst[apart], mean[apart]


def _worst(
    gain: NDArray[np.float64], rises: NDArray[np.bool_], group: NDArray[np.int64], before: NDArray[np.float64]
) -> Accuracy:
    """The worst-group accuracy before the first and after each of N changes, (N + 1,); each is of one row.

    The groups of the moved class can only rise, and all others only fall. So the lowest that falls is the
    lowest of all values so far, and the lowest that rises is the lowest of all values still to be left.

    Args:
        gain: (N,), by how much each change raises the number of right answers in its group.
        rises: (N,), whether its group is one that rises. At the end all these are right.
        group: (N,).
        before: (groups,), the right answers of each group before the first change.
    """
    count = np.bincount(group, minlength=len(before))
    by_group = group.argsort(kind="stable")
    running = np.concatenate([[0.0], gain[by_group].cumsum()])
    start = before - running[count.cumsum() - count]
    right = np.empty(len(group))
    right[by_group] = running[1:] + start[group[by_group]]
    size = count[group]
    first = np.where(rises, 1.0, before[group] / size).min()
    falling = np.concatenate([[first], np.where(rises, 1.0, right / size)])
    rising = np.concatenate([np.where(rises, (right - gain) / size, 1.0), [1.0]])
    return np.minimum(np.minimum.accumulate(falling), np.minimum.accumulate(rising[::-1])[::-1])


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
