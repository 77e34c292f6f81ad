"""Groups and accuracies, defined once and used everywhere.

The group of a row has the number label · (number of attributes) + attribute. UNKNOWN is the code of an
attribute that is not known. Accuracies are fractions in [0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.store import Artefact

UNKNOWN = -1
NOT_KNOWN = "unknown"  # in the name of a group, if the attribute is not known
WORST = "worst_group"  # is no group's name: it stands beside them in tables and plots
SEPARATORS = ("_", " / ", " | ")  # between class and attribute in the name of a group
# The group labels that a method sees.
Labels = Literal["none", "validation, to choose", "validation, to train", "training, to train"]
# Their signs in the paper's Table 2.
SIGNS: dict[Labels, str] = {
    "none": "✗",
    "validation, to choose": "✓",
    "validation, to train": "✓✓",
    "training, to train": "✓✓",
}
Accuracy = NDArray[np.float64]


def seen(labels: Labels, criterion: str, erm: Labels = "none") -> Labels:
    """The group labels that a method sees, if it is fitted with this criterion.

    Args:
        labels: those that it sees if groups choose.
        criterion: what chooses (`pipeline.selection`); only `groups` reads group labels.
        erm: those that ERM, from which it starts, has seen.
    """
    return erm if labels == "validation, to choose" and criterion != "groups" else labels


def seen_by_erm(select: str, criterion: str) -> Labels:
    """The group labels that ERM saw. Its epoch is the last one, or the best one by the criterion.

    Args:
        select: `train.select`, last or best.
        criterion: what chose.
    """
    return seen("validation, to choose" if select == "best" else "none", criterion)


def better(worst: Accuracy, mean: Accuracy, than_worst: Accuracy, than_mean: Accuracy) -> NDArray[np.bool_]:
    """Whether one thing is better than another, element by element: the one rule of model selection.

    The one with the higher worst-group accuracy is better. If these are equal, the one with the higher mean
    accuracy is better. If both are equal, neither is better.
    """
    return np.asarray((worst > than_worst) | ((worst == than_worst) & (mean > than_mean)))


def prefer(worst: Accuracy | Sequence[float], mean: Accuracy | Sequence[float]) -> int:
    """The index of the best one by `better`: highest worst group, then highest mean, then the first.

    Args:
        worst: (n,) worst-group accuracies.
        mean: (n,) mean accuracies.
    """
    worst, mean = np.asarray(worst), np.asarray(mean)
    best = 0
    for each in range(1, len(worst)):
        if better(worst[each], mean[each], worst[best], mean[best]):
            best = each
    return best


@dataclass(frozen=True)
class Grouping:
    """The rows of one split, grouped for accuracy.

    Attributes:
        kind: `group` if the attribute of every row is known, else `class`. The other kinds choose models
            without attributes: see `pipeline.selection`.
        names: the names of the groups or classes.
        index: (N,) int64, the group or class of each row.
        weight: (N,) float64, how much each row counts; None if all count the same.
    """

    kind: Literal["group", "class", "weighted class", "error group", "environment"]
    names: list[str]
    index: NDArray[np.int64]
    weight: NDArray[np.float64] | None = None

    @property
    def count(self) -> NDArray[np.int64]:
        """(names,) number of rows in each."""
        return np.bincount(self.index, minlength=len(self.names))

    def accuracy(self, correct: NDArray[np.bool_]) -> Accuracy:
        """(..., N) bool, whether each row is right, to the accuracy of every group, (..., names)."""
        return group_accuracy(correct, self.index, len(self.names), self.weight)

    def scores(self, accuracy: Accuracy) -> tuple[Accuracy, Accuracy]:
        """(..., names) to the worst-group (or worst-class) and the mean accuracy, (...) each.

        Model selection looks at these two, in this order: see `prefer`.
        """
        share = np.bincount(self.index, self.weight, len(self.names))
        return worst_group(accuracy), weighted_mean(accuracy, share)


@dataclass(frozen=True)
class Groups:
    """The groups of a dataset: every pair of a class and a spurious attribute.

    `attributes` is empty if no image has a known attribute. NOT_KNOWN is no attribute.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, artefact: Artefact) -> "Groups":
        """The groups of images.h5 or features.h5."""
        return cls(artefact.names["classes"], artefact.names["attributes"])

    @property
    def names(self) -> list[str]:
        """`<class>_<attribute>` in group order; with another separator, if two would have one name with `_`.

        Raises:
            MacError: two groups have one name with every separator.
        """
        return self._names(self.attributes)

    def _names(self, attributes: tuple[str, ...]) -> list[str]:
        separator = self._separator
        return [f"{label}{separator}{attribute}" for label, attribute in product(self.classes, attributes)]

    @cached_property
    def _separator(self) -> str:
        """The first separator with which all names differ, also those of rows with unknown attributes."""
        pairs = list(product(self.classes, dict.fromkeys((*self.attributes, NOT_KNOWN))))
        for separator in SEPARATORS:
            names = {separator.join(pair) for pair in pairs}
            if len(names) == len(pairs) and WORST not in names:
                return separator
        raise MacError(
            f"two groups would have one name (classes {', '.join(self.classes)}; attributes "
            f"{', '.join(self.attributes)}); rename a class or an attribute"
        )

    def grouping(self, label: NDArray[np.integer], attribute: NDArray[np.integer]) -> Grouping:
        """Group the rows of a split, (N,) each; by class only, if any attribute is unknown."""
        if len(self.attributes) and (attribute != UNKNOWN).all():
            return Grouping("group", self.names, label.astype(np.int64) * len(self.attributes) + attribute)
        return Grouping("class", list(self.classes), label.astype(np.int64))

    def described(self, label: NDArray[np.integer], attribute: NDArray[np.integer]) -> Grouping:
        """Group every row by its class and attribute; `<class>_unknown` if the attribute is not known."""
        if not len(self.attributes):
            return self.grouping(label, attribute)
        unknown = attribute == UNKNOWN
        attributes = (*self.attributes, NOT_KNOWN) if unknown.any() else self.attributes
        codes = np.where(unknown, len(attributes) - 1, attribute)
        return Grouping("group", self._names(attributes), label.astype(np.int64) * len(attributes) + codes)


def group_accuracy(
    correct: NDArray[np.bool_],
    group: NDArray[np.int64],
    groups: int,
    weight: NDArray[np.float64] | None = None,
) -> Accuracy:
    """Accuracy of every group, for many heads at once.

    Args:
        correct: (..., N) bool.
        group: (N,) int64.
        weight: (N,) float64, how much each row counts in its group; None if all count the same.

    Returns:
        (..., groups) float64 in [0, 1]; NaN for an empty group.
    """
    each = np.ones(len(group)) if weight is None else weight
    flat = correct.reshape(math.prod(correct.shape[:-1]), len(group))
    # Row after row, so a head's accuracy does not depend on how many heads there are.
    sums = [np.bincount(group, each * right, groups) for right in flat]
    with np.errstate(invalid="ignore"):
        return np.stack(sums).reshape(*correct.shape[:-1], groups) / np.bincount(group, each, groups)


def worst_group(accuracy: Accuracy) -> Accuracy:
    """(..., groups) to (...): the lowest accuracy over the groups that have rows."""
    return np.asarray(np.where(np.isnan(accuracy), np.inf, accuracy).min(-1))


def worst_classes(
    accuracy: Accuracy, grouping: Grouping, label: NDArray[np.int64], classes: int, most: int
) -> NDArray[np.int64]:
    """The classes of the worst groups, in the order of the classes; all, if there are no more than `most`.

    Args:
        accuracy: (names,), of every group.
        grouping: all rows of a group have the same label.
        label: (N,).
        classes: how many there are.
        most: how many may be returned.
    """
    lowest = np.full(classes, np.inf)
    np.minimum.at(lowest, label, accuracy[grouping.index])
    return np.sort(lowest.argsort(kind="stable")[:most])


def weighted_mean(accuracy: Accuracy, share: NDArray[np.integer] | NDArray[np.float64]) -> Accuracy:
    """(..., groups) to (...): groups weighted by `share` (groups,); empty groups are left out.

    If `share` has the counts of the split itself, this is the raw mean. If it has the counts of the training
    split, this is the *adjusted* mean (Sagawa et al. 2020).
    """
    weight = share.astype(np.float64) * ~np.isnan(accuracy)
    with np.errstate(invalid="ignore"):  # no group has both rows and weight: NaN
        return np.asarray((np.nan_to_num(accuracy) * weight).sum(-1) / weight.sum(-1))


def as_dict(accuracy: Accuracy, split: Grouping, training: Grouping | None) -> dict[str, Any]:
    """The metrics of one head on one split.

    Args:
        accuracy: (names,) from `group_accuracy`.
        split: the split's grouping.
        training: the training split's grouping, if the adjusted mean is wanted.

    Returns:
        `worst_group`, `raw_mean`, `adjusted_mean` and `groups.<name>`, each a float in [0, 1]. Groups without
        rows are left out. If attributes of the split are unknown, there are `worst_class` and
        `classes.<name>` instead of `worst_group` and `groups.<name>`. There is an adjusted mean only if the
        groups of both splits are known, and they share one.
    """
    many = "groups" if split.kind == "group" else "classes"
    worst, mean = split.scores(accuracy)
    metrics: dict[str, Any] = {f"worst_{split.kind}": worst.item(), "raw_mean": mean.item()}
    if training and split.kind == training.kind == "group":
        adjusted = weighted_mean(accuracy, training.count).item()
        if not math.isnan(adjusted):
            metrics["adjusted_mean"] = adjusted
    by_name = zip(split.names, accuracy.tolist(), strict=True)
    metrics[many] = {name: value for name, value in by_name if not np.isnan(value)}
    return metrics


def over_seeds(heads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean and the standard deviation of each metric over several heads: `{mean, std}`.

    std is the sample standard deviation; for one head it is 0.

    Args:
        heads: the metrics of each head, from `as_dict`.
    """
    merged: dict[str, Any] = {}
    for key, first in heads[0].items():
        values = [head[key] for head in heads]
        if isinstance(first, dict):
            merged[key] = over_seeds(values)
        else:
            std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            merged[key] = {"mean": float(np.mean(values)), "std": std}
    return merged
