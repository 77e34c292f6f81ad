"""A held-out split (val or test) on the device, and the accuracy of heads on it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import selection
from pipeline.last_layer.heads import Heads
from pipeline.metrics import Accuracy, Grouping, Groups
from pipeline.params.selection import CriterionName
from pipeline.store import Artefact, FittedHeads


@dataclass(frozen=True)
class HeldOutSplit:
    """The cached features of a held-out split.

    Attributes:
        features: (n, D) float32.
        label: (n,) int64.
        grouping: its groups, or its classes if groups are unknown: for what is reported.
        criterion: the grouping that chooses between heads; the same, if the split chooses nothing.
    """

    features: Tensor
    label: Tensor
    grouping: Grouping
    criterion: Grouping

    @classmethod
    def of(
        cls,
        features: Artefact,
        split: Literal["val", "test"],
        on: torch.device,
        erm: FittedHeads | None = None,
        criterion: CriterionName | None = None,
    ) -> "HeldOutSplit":
        """A split of features.h5, on the device.

        Args:
            erm: the ERM head, the reference of the criterion; None if there is no criterion.
            criterion: what chooses; None for a split that chooses nothing.

        Raises:
            MacError: the criterion needs attributes that are unknown.
        """
        x, label, attribute = (features[f"{split}/{name}"][:] for name in ("original", "label", "attribute"))
        groups = Groups.of(features)
        grouping = chooses = groups.grouping(label, attribute)
        if criterion is not None:
            assert erm is not None
            chooses = selection.criterion(criterion, groups, label, attribute, erm.logits(x)[0])
        return cls(torch.from_numpy(x).to(on), torch.from_numpy(label).to(on), grouping, chooses)

    def correct(self, heads: Heads) -> NDArray[np.bool_]:
        """Whether each head is right about each row, (S, K, n)."""
        correct = heads.logits(self.features).argmax(-1) == self.label
        return np.asarray(correct.cpu().numpy())

    def accuracy(self, heads: Heads) -> Accuracy:
        """The accuracy of each head in each group or class, (S, K, names)."""
        return self.grouping.accuracy(self.correct(heads))

    def scores(self, heads: Heads) -> tuple[Accuracy, Accuracy]:
        """What chooses: the worst and the mean accuracy of each head by the criterion, (S, K) each."""
        return self.criterion.scores(self.criterion.accuracy(self.correct(heads)))
