"""Groups and accuracies, defined once and used everywhere.

group = label · n_attributes + attribute; an attribute of UNKNOWN is not known. Accuracies are fractions in [0, 1].
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.store import Artefact

UNKNOWN = -1
# The group labels that a method sees, and the sign that the paper's Table 2 has for it.
Labels = Literal["none", "validation, to choose", "validation, to train", "training, to train"]
SIGNS: dict[Labels, str] = {"none": "✗", "validation, to choose": "✓", "validation, to train": "✓✓", "training, to train": "✓✓"}
Accuracy = NDArray[np.float64]


@dataclass(frozen=True)
class Grouping:
    """The rows of one split, grouped for accuracy.

    Attributes:
        kind: `group` where the attribute of every row is known, else `class`.
        names: of the groups or classes.
        index: (N,) int64, the group or class of each row.
    """

    kind: Literal["group", "class"]
    names: list[str]
    index: NDArray[np.int64]

    @property
    def count(self) -> NDArray[np.int64]:
        """(names,) number of rows in each."""
        return np.bincount(self.index, minlength=len(self.names))


@dataclass(frozen=True)
class Groups:
    """The groups of a dataset: every pair of a class and a spurious attribute; no attributes where none is ever known."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, artefact: Artefact) -> "Groups":
        """The groups of images.h5 or features.h5."""
        return cls(tuple(artefact.attribute("classes")), tuple(artefact.attribute("attributes")))

    @property
    def names(self) -> list[str]:
        """`<class>_<attribute>` in group order."""
        return [f"{c}_{a}" for c in self.classes for a in self.attributes]

    def grouping(self, label: NDArray[np.integer], attribute: NDArray[np.integer]) -> Grouping:
        """Group the rows of a split, (N,) labels and attributes: by class alone if any attribute is unknown."""
        if len(self.attributes) and (attribute != UNKNOWN).all():
            return Grouping("group", self.names, label.astype(np.int64) * len(self.attributes) + attribute)
        return Grouping("class", list(self.classes), label.astype(np.int64))

    def described(self, label: NDArray[np.integer], attribute: NDArray[np.integer]) -> Grouping:
        """Every row under the most that is known of it: its group, or `<class>_unknown`."""
        if not len(self.attributes):
            return self.grouping(label, attribute)
        attributes = len(self.attributes) + bool((attribute == UNKNOWN).any())
        names = [f"{c}_{a}" for c in self.classes for a in (*self.attributes, "unknown")[:attributes]]
        known = np.where(attribute == UNKNOWN, attributes - 1, attribute)
        return Grouping("group", names, label.astype(np.int64) * attributes + known)


def group_accuracy(correct: NDArray[np.bool_], group: NDArray[np.int64], groups: int) -> Accuracy:
    """Accuracy of every group, for many heads at once.

    Args:
        correct: (..., N) bool.
        group: (N,) int64.

    Returns:
        (..., groups) float64 in [0, 1]; NaN for an empty group.
    """
    member = np.eye(groups)[group]
    with np.errstate(invalid="ignore"):
        return np.asarray(correct.astype(np.float64) @ member / member.sum(0))


def worst_group(accuracy: Accuracy) -> Accuracy:
    """(..., groups) to (...): the lowest accuracy over the groups that have rows."""
    return np.asarray(np.where(np.isnan(accuracy), np.inf, accuracy).min(-1))


def weighted_mean(accuracy: Accuracy, share: NDArray[np.integer]) -> Accuracy:
    """(..., groups) to (...): groups weighted by `share` (groups,); empty groups are left out.

    With the split's own counts as the share it is the raw mean, with the training counts the *adjusted* mean
    (Sagawa et al. 2020).
    """
    weight = share.astype(np.float64) * ~np.isnan(accuracy)
    with np.errstate(invalid="ignore"):  # no group has both rows and weight: NaN
        return np.asarray((np.nan_to_num(accuracy) * weight).sum(-1) / weight.sum(-1))


def as_dict(accuracy: Accuracy, split: Grouping, training: Grouping | None) -> dict[str, object]:
    """The metrics of one head on one split.

    Args:
        accuracy: (names,) from `group_accuracy`.
        split: the split's grouping.
        training: the training split's, where there is need of the adjusted mean.

    Returns:
        `worst_group`, `raw_mean`, `adjusted_mean` and `groups.<name>`, each a float in [0, 1]; groups without rows are left
        out. Where attributes of the split are unknown, `worst_class` and `classes.<name>` instead. The adjusted mean is left
        out unless the groups of both splits are known.
    """
    kind, many = split.kind, {"group": "groups", "class": "classes"}[split.kind]
    metrics: dict[str, object] = {
        f"worst_{kind}": worst_group(accuracy).item(),
        "raw_mean": weighted_mean(accuracy, split.count).item(),
    }
    if training and split.kind == training.kind == "group":
        metrics["adjusted_mean"] = weighted_mean(accuracy, training.count).item()
    metrics[many] = {name: value for name, value in zip(split.names, accuracy.tolist(), strict=True) if value == value}
    return metrics


def over_seeds(heads: list[dict[str, object]]) -> dict[str, object]:
    """Metrics of several heads (`as_dict`) to `{mean, std}` of each; std is the sample standard deviation, 0 for one head."""
    merged: dict[str, object] = {}
    for key, first in heads[0].items():
        values = [head[key] for head in heads]
        if isinstance(first, dict):
            merged[key] = over_seeds(values)  # type: ignore[arg-type]
        else:
            merged[key] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}  # type: ignore[arg-type]
    return merged
