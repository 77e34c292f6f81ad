"""Groups and accuracies, defined once and used everywhere.

group = label · n_attributes + attribute. Accuracies are fractions in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """The groups of a dataset: every pair of a class and a spurious attribute."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """`<class>_<attribute>` in group order."""
        return [f"{c}_{a}" for c in self.classes for a in self.attributes]

    def __len__(self) -> int:
        return len(self.classes) * len(self.attributes)

    def index(self, label: NDArray[np.integer], attribute: NDArray[np.integer]) -> NDArray[np.int64]:
        """(N,) labels and attributes to (N,) group numbers."""
        return label.astype(np.int64) * len(self.attributes) + attribute

    def count(self, label: NDArray[np.integer], attribute: NDArray[np.integer]) -> NDArray[np.int64]:
        """(groups,) number of rows in each group."""
        return np.bincount(self.index(label, attribute), minlength=len(self))


def group_accuracy(correct: Tensor, group: Tensor, groups: int) -> Tensor:
    """Accuracy of every group, for many heads at once.

    Args:
        correct: (..., N) bool.
        group: (N,) int64.

    Returns:
        (..., groups) float64 in [0, 1]; NaN for an empty group.
    """
    member = torch.nn.functional.one_hot(group, groups).double()
    return correct.double() @ member / member.sum(0)


def worst_group(accuracy: Tensor) -> Tensor:
    """(..., groups) to (...): the lowest accuracy over the groups that have rows."""
    return accuracy.nan_to_num(nan=float("inf")).amin(-1)


def weighted_mean(accuracy: Tensor, share: Tensor) -> Tensor:
    """(..., groups) to (...): groups weighted by `share` (groups,); empty groups are left out.

    With the split's own counts as the share it is the raw mean, with the training counts the *adjusted* mean
    (Sagawa et al. 2020).
    """
    present = ~accuracy.isnan()
    weight = share.double() * present
    return (accuracy.nan_to_num() * weight).sum(-1) / weight.sum(-1)


def as_dict(accuracy: Tensor, groups: Groups, count: Tensor, train_count: Tensor) -> dict[str, object]:
    """The metrics of one head on one split.

    Args:
        accuracy: (groups,) from `group_accuracy`.
        count: (groups,) rows of the split.
        train_count: (groups,) rows of the training split.

    Returns:
        `worst_group`, `raw_mean`, `adjusted_mean` and `groups.<name>`, each a float in [0, 1] (groups without rows are
        left out).
    """
    return {
        "worst_group": worst_group(accuracy).item(),
        "raw_mean": weighted_mean(accuracy, count).item(),
        "adjusted_mean": weighted_mean(accuracy, train_count).item(),
        "groups": {name: value for name, value in zip(groups.names, accuracy.tolist(), strict=True) if value == value},
    }


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
