"""All that is told of heads on a held-out split: accuracy by group, balanced accuracy, AUROC, calibration, how sure it is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import Grouping, Groups, as_dict, group_accuracy, over_seeds
from pipeline.store import Artefact

ECE_BINS = 15


def scores(logits: NDArray[np.floating], label: NDArray[np.int64], grouping: Grouping, training: Grouping) -> dict[str, Any]:
    """The metrics of S classifiers on one split.

    Args:
        logits: (S, N, C). label: (N,) int64.
        grouping: the split's.
        training: the training split's, for the adjusted mean.

    Returns:
        `{mean, std}` over the classifiers of each of `metrics.as_dict` and `quality`; and `worst_group_interval`, or
        `worst_class_interval`, `{low, high}`.
    """
    correct = logits.argmax(-1) == label
    accuracy = group_accuracy(correct, grouping.index, len(grouping.names))
    merged = over_seeds([as_dict(a, grouping, training) | quality(each, label) for a, each in zip(accuracy, logits, strict=True)])
    low, high = worst_group_interval(correct, grouping.index)
    return merged | {f"worst_{grouping.kind}_interval": {"low": low, "high": high}}


def head_scores(
    features: Artefact, split: str, weight: NDArray[np.float32], bias: NDArray[np.float32], training: Grouping
) -> dict[str, Any]:
    """`scores` of S heads, weight (S, C, D) and bias (S, C), on a split of features.h5."""
    label, attribute = features[f"{split}/label"][:], features[f"{split}/attribute"][:]
    logits = head_logits(features[f"{split}/original"][:], weight, bias)
    return scores(logits, label, Groups.of(features).grouping(label, attribute), training)


def head_logits(features: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, D) to (S, N, C), or to (N, C) for a single head, weight (C, D) and bias (C,)."""
    return np.asarray(features @ weight.swapaxes(-1, -2) + bias[..., None, :])


def quality(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> dict[str, float]:
    """What is told of one head beside its accuracy by group.

    Args:
        logits: (N, C).
        truth: (N,), classes.

    Returns:
        `balanced_accuracy`, the mean recall of the classes that have rows; `auroc` of the second class where there are two and both
        have rows; `ece`, the expected calibration error over 15 bins of confidence (Guo et al. 2017). Each in [0, 1].
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    probability = shifted / shifted.sum(-1, keepdims=True)
    confidence, correct = probability.max(-1), probability.argmax(-1) == truth
    found = {"balanced_accuracy": float(np.mean([correct[truth == c].mean() for c in np.unique(truth)]))}
    if probability.shape[1] == 2 and len(np.unique(truth)) == 2:
        found["auroc"] = _auroc(probability[:, 1], truth)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
    return found | {"ece": float(np.abs(gaps).sum() / len(truth))}


def _auroc(score: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The share of pairs of classes 1 and 0 in which 1 has the higher score, equal scores counted half (Mann and Whitney 1947).

    `sklearn.metrics.roc_auc_score` says the same; to import it takes longer than everything else here.
    """
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positives = int((truth == 1).sum())
    return float((rank[truth == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(truth) - positives)))


def worst_group_interval(correct: NDArray[np.bool_], group: NDArray[np.int64], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the worst group: what another test set of this size might have shown.

    Rows are drawn anew within each group, the same rows for all heads; the worst group is that of each head, averaged over heads.

    Args:
        correct: (S, N), whether each head is right about each row.
        group: (N,).
    """
    rng = np.random.default_rng(seed)
    lowest = np.full((resamples, len(correct)), np.inf)
    for g in np.unique(group):
        members = correct[:, group == g]
        n = members.shape[1]
        # How often heads agree is all that matters: rows with the same pattern over heads are drawn as one.
        patterns, count = np.unique(members, axis=1, return_counts=True)
        drawn = rng.multinomial(n, count / n, size=resamples)
        lowest = np.minimum(lowest, drawn @ patterns.T / n)
    low, high = np.percentile(lowest.mean(1), [2.5, 97.5])
    return float(low), float(high)
