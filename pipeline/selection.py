"""What chooses on the validation split, defined once: for epochs, heads and settings.

Every criterion cuts the rows of the split into parts. The model with the highest accuracy in its worst part
is chosen, by `metrics.better`. Only `groups` reads group labels. The others read the labels, and the logits
of a reference: a network trained as usual (ERM), which gets the majority right and tends to get minorities
wrong.

- `groups`: class × attribute.
- `soft_errors`: classes. A row weighs exp(−4 p), where p is the reference's probability of its label. The
  weights are those by which AFR (Qiu et al. 2023) trains; here they choose.
- `error_groups`: class × whether the reference is right, as JTT splits the training rows (Liu et al. 2021).
- `eiil`: class × environment, inferred by EIIL (Creager et al. 2021) as EVaLS uses it (Ghaznavi et al. 2024).
  With two classes it is `error_groups`, row for row.
- `worst_class`: classes.
"""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Grouping, Groups

if TYPE_CHECKING:
    from pipeline.params.selection import Criterion, CriterionName

# What the worst accuracy of each criterion is of, in words.
SPOKEN: "dict[Criterion, str]" = {
    "groups": "worst group",
    "soft_errors": "worst class, rows that ERM doubts weighing more",
    "error_groups": "worst of the classes' right and wrong rows of ERM",
    "eiil": "worst inferred environment",
    "worst_class": "worst class",
}
# What their mean accuracy is, in words.
SPOKEN_MEAN: "dict[Criterion, str]" = dict.fromkeys(SPOKEN, "mean") | {"soft_errors": "weighted mean"}
BY_REFERENCE = ("soft_errors", "error_groups", "eiil")  # the criteria that read the logits of the reference
SHARPNESS = 4.0  # of the soft errors: a row with p = 1 weighs exp(−4) = 0.018
# Weights are multiples of this. Their sums over a million rows are exact, so heads with the same answers have
# the same accuracy, in whatever order it is summed.
WEIGHT_UNIT = 2.0**-32


def resolved(name: "CriterionName", groups: Groups, attribute: NDArray[np.integer]) -> "Criterion":
    """The criterion that chooses on a split: what `auto` stands for, or `name` itself.

    Args:
        attribute: (N,) integers, the attributes of the split; read by `auto` and `groups` alone.

    Raises:
        MacError: `groups`, but an attribute is unknown.
    """
    if name != "auto" and name != "groups":
        return name
    unknown = int((attribute == UNKNOWN).sum()) if groups.attributes else len(attribute)
    if not unknown:
        return "groups"
    if name == "groups":
        raise MacError(
            f"selection.criterion: groups needs the spurious attribute of every validation image, but "
            f"{unknown} of {len(attribute)} are unknown; set it to auto or soft_errors"
        )
    return "soft_errors"


def criterion(
    name: "CriterionName",
    groups: Groups,
    label: NDArray[np.integer],
    attribute: NDArray[np.integer],
    logits: NDArray[np.floating],
) -> Grouping:
    """The grouping by which models are chosen on a split.

    Args:
        groups: the classes and attributes of the dataset.
        label: (N,) integers.
        attribute: (N,) integers; read by `auto` and `groups` alone.
        logits: (N, C), of the reference.

    Raises:
        MacError: `groups`, but an attribute is unknown.
    """
    name = resolved(name, groups, attribute)
    if name == "groups":
        return groups.grouping(label, attribute)
    y, z, classes = label.astype(np.int64), logits.astype(np.float64), list(groups.classes)
    if name == "soft_errors":
        return Grouping("weighted class", classes, y, soft_weight(y, z))
    if name == "error_groups":
        return Grouping("error group", _names(groups, ("wrong", "right")), 2 * y + (z.argmax(1) == y))
    if name == "eiil":
        return Grouping("environment", _names(groups, ("1", "2")), 2 * y + environment(y, z))
    return Grouping("class", classes, y)


def soft_weight(label: NDArray[np.int64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(−4 p) of each row, (N,) float64 in [0.018, 1]; p is the probability of its label."""
    probability = _probability(logits)[np.arange(len(label)), label]
    return np.asarray(np.round(np.exp(-SHARPNESS * probability) / WEIGHT_UNIT) * WEIGHT_UNIT)


def environment(label: NDArray[np.int64], logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """The environment of each row, 0 or 1, (N,) int64: the partition that violates invariance the most.

    EIIL maximises IRM's penalty Σ_e (Σ_i q_i(e) g_i)² over soft assignments q of the rows to two
    environments, with g_i = d/ds CE(s · z_i, y_i) at s = 1, which is Σ_c p_c z_c − z_y. The two sums add up
    to Σ_i g_i, so the penalty is highest where one of them is: all rows with g_i > 0 in one environment.

    With two classes, g_i is the probability of the other class times how much higher its logit is. It is
    positive where the model is wrong, so the environments are those of `error_groups`. With more classes,
    some rows that it gets wrong have g_i ≤ 0: those whose label is a close second.
    """
    slope = (_probability(logits) * logits).sum(1) - logits[np.arange(len(label)), label]
    return np.asarray(slope > 0, np.int64)


def criterion_of(grouping: Grouping) -> "Criterion":
    """The name of the criterion that a grouping is."""
    names: dict[str, Criterion] = {
        "group": "groups",
        "weighted class": "soft_errors",
        "error group": "error_groups",
        "environment": "eiil",
        "class": "worst_class",
    }
    return names[grouping.kind]


def spoken_scores(criterion: "Criterion", worst: float, mean: float) -> str:
    """The worst and the mean accuracy of a criterion, in words, for a log."""
    return f"{SPOKEN[criterion]} {worst:.3f}, {SPOKEN_MEAN[criterion]} {mean:.3f}"


def _probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the classes, (N, C)."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def _names(groups: Groups, parts: Sequence[str]) -> list[str]:
    return [f"{label}_{part}" for label, part in product(groups.classes, parts)]
