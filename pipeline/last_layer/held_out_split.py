"""A held-out split (val or test) on the device, and the accuracy of heads on it."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import selection
from pipeline.compute.progress import log
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
        criterion: the grouping of `scores`: what chooses between heads; `grouping` itself in a split that is
            there to measure them.
    """

    features: Tensor
    label: Tensor
    grouping: Grouping
    criterion: Grouping

    @classmethod
    def to_measure(
        cls, features: Artefact, split: Literal["val", "test"], on: torch.device
    ) -> "HeldOutSplit":
        """A split of features.h5, on the device, by its groups, or classes if groups are unknown."""
        x, label, attribute = (features[f"{split}/{name}"][:] for name in ("original", "label", "attribute"))
        grouping = Groups.of(features).grouping(label, attribute)
        return cls(torch.from_numpy(x).to(on), torch.from_numpy(label).to(on), grouping, grouping)

    @classmethod
    def to_choose(
        cls, features: Artefact, on: torch.device, erm: FittedHeads, criterion: CriterionName
    ) -> "HeldOutSplit":
        """The validation split of features.h5, on the device, which chooses by `criterion`.

        Args:
            erm: the ERM head, the criterion's reference.

        Raises:
            MacError: the criterion needs attributes that are unknown.
        """
        split, attribute = cls.to_measure(features, "val", on), features["val/attribute"][:]
        logits, label = erm.logits(features["val/original"][:])[0], features["val/label"][:]
        chooses = selection.criterion(criterion, Groups.of(features), label, attribute, logits)
        if chooses.kind in ("error group", "environment") and not chooses.count.all():
            empty = ", ".join(np.array(chooses.names)[chooses.count == 0])
            log.warning("selection.criterion: no validation image is in %s; the others choose", empty)
        return replace(split, criterion=chooses)

    def correct(self, heads: Heads) -> NDArray[np.bool_]:
        """Whether each head is right about each row, (S, K, n); one that is not finite is right about none.

        So it is not preferred to others.
        """
        correct = heads.logits(self.features).argmax(-1) == self.label
        return np.asarray((correct & heads.finite()[..., None]).cpu().numpy())

    def accuracy(self, heads: Heads) -> Accuracy:
        """The accuracy of each head in each group or class, (S, K, names)."""
        return self.grouping.accuracy(self.correct(heads))

    def scores(self, heads: Heads) -> tuple[Accuracy, Accuracy]:
        """The worst and the mean accuracy of each head by the criterion, (S, K) each."""
        return self.criterion.scores(self.criterion.accuracy(self.correct(heads)))
