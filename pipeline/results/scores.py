"""Measures heads on a held-out split: accuracy by group, AUROC, calibration, and an interval."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.metrics import Grouping, as_dict, over_seeds
from pipeline.project import Opened
from pipeline.results.robust_coverage import robust_coverage
from pipeline.store import FittedHeads

ECE_BINS = 15
_AT_ONCE = 250  # resamples, to bound the memory; the result does not depend on it
ENDS = (2.5, 97.5)  # of a 95 % interval, in percent of the resamples


def head_scores(given: Opened, heads: FittedHeads, split: str) -> dict[str, Any]:
    """`scores` of S heads on the features of a split.

    Args:
        given: images and features.
        split: `val` or `test`.

    Raises:
        MacError: a logit is not finite.
    """
    features = given.file("features")
    logits = heads.logits(features[f"{split}/original"][:])
    return scores(logits, features[f"{split}/label"][:], given.grouping(split), given.grouping("train"))


def scores(
    logits: NDArray[np.floating], label: NDArray[np.int64], grouping: Grouping, training: Grouping
) -> dict[str, Any]:
    """The metrics of S classifiers on one split.

    Args:
        logits: (S, N, C).
        label: (N,) int64.
        grouping: the split's groups.
        training: the training split's groups, for the adjusted mean.

    Returns:
        `{mean, std}` over the classifiers of each metric of `metrics.as_dict` and of `quality`, and of
        `robust_coverage`; and `worst_group_interval`, or `worst_class_interval`, `{low, high}`.

    Raises:
        MacError: a logit is not finite, so there is no answer.
    """
    correct = answers(logits) == label
    each = []
    for accuracy, of_one in zip(grouping.accuracy(correct), logits, strict=True):
        coverage = {"robust_coverage": robust_coverage(of_one, label, grouping)}
        each.append(as_dict(accuracy, grouping, training) | coverage | quality(of_one, label))
    low, high = worst_group_interval(correct, grouping.index)
    return over_seeds(each) | {f"worst_{grouping.kind}_interval": {"low": low, "high": high}}


def answers(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """The class with the highest logit: (..., C) to (...) int64.

    Raises:
        MacError: a logit is not finite, so there is no answer.
    """
    if not np.isfinite(logits).all():
        raise MacError("the logits of a head are NaN or infinite; lower its learning rate and train it again")
    return np.asarray(logits.argmax(-1))


def quality(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> dict[str, float]:
    """The metrics of one classifier, besides its accuracy by group.

    Args:
        logits: (N, C).
        truth: (N,), classes.

    Returns:
        Each in [0, 1]. `balanced_accuracy`: the mean recall of the classes that have rows. `auroc`: for the
        second class, if there are two classes and both have rows. `ece`: the expected calibration error with
        15 bins of confidence (Guo et al. 2017).
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    probability = shifted / shifted.sum(-1, keepdims=True)
    confidence, correct = probability.max(-1), probability.argmax(-1) == truth
    present = np.unique(truth)
    found = {"balanced_accuracy": float(np.mean([correct[truth == c].mean() for c in present]))}
    if probability.shape[1] == 2 and len(present) == 2:
        found["auroc"] = _auroc(probability[:, 1], truth)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
    return found | {"ece": float(np.abs(gaps).sum() / len(truth))}


def _auroc(score: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Of all pairs of a row of class 1 and a row of class 0, the share in which class 1 scores higher.

    Pairs with equal scores count half (Mann and Whitney 1947). `sklearn.metrics.roc_auc_score` gives the same
    result, but its import takes longer than everything else here.
    """
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positives = int((truth == 1).sum())
    above = rank[truth == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(truth) - positives)))


def worst_group_interval(
    correct: NDArray[np.bool_], group: NDArray[np.int64], resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the worst-group accuracy, for other test sets of the same size.

    Args:
        correct, group, resamples, seed: of `resampled_worst`. The accuracies of the heads are averaged.

    Returns:
        The ends of the interval, in [0, 1] (`basic_interval`). With many even groups it may lie above the
        accuracy itself: the lowest of many is low by chance, too.
    """
    lowest = resampled_worst(correct, group, resamples, seed).mean(1)
    here = np.min([correct[:, group == g].mean(1) for g in np.unique(group)], axis=0)
    return basic_interval(float(here.mean()), lowest)


def basic_interval(here: float, resampled: NDArray[np.float64], least: float = 0.0) -> tuple[float, float]:
    """The 95 % basic bootstrap interval (Davison, Hinkley 1997, section 5.2).

    It is the value here, less how far the resampled ones stray from it. For the lowest of several resampled
    accuracies strays down, the more the more alike they are, and the percentiles themselves stray with it. Of
    300 simulated test sets with four groups of 250 images and the accuracy .9, the percentiles held the true
    worst-group accuracy in 64 %, and the basic interval in 95 %; with one group at .6, in 94 % and 92 %.

    Args:
        here: the value on the images as they are.
        resampled: (R,), the same on each resample.
        least: the least that the value can be; the most is 1.
    """
    below, above = np.percentile(resampled - here, ENDS)
    # Rounded, since the sign of an end counts: what is 0 but for rounding errors is 0.
    low, high = (round(here - float(stray), 12) for stray in (above, below))
    return max(least, low), min(1.0, high)


def resampled_worst(
    correct: NDArray[np.bool_], group: NDArray[np.int64], resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """The worst-group accuracy of every head on resampled images: (resamples, S), in [0, 1].

    Rows are resampled within each group, the same rows for all heads.

    Args:
        correct: (S, N) bool, whether each head is right about each row.
        group: (N,) int64.
    """
    rng = np.random.default_rng(seed)
    lowest = np.full((resamples, len(correct)), np.inf)
    for g in np.unique(group):
        members = correct[:, group == g]
        n = members.shape[1]
        # Rows for which the same heads are right are equivalent, so they are drawn together.
        patterns, count = np.unique(members, axis=1, return_counts=True)
        right = patterns.T.astype(np.float64)
        for start in range(0, resamples, _AT_ONCE):
            part = lowest[start : start + _AT_ONCE]
            drawn = rng.multinomial(n, count / n, size=len(part)).astype(np.float64)
            np.minimum(part, drawn @ right / n, out=part)
    return lowest
