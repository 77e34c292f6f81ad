"""A held-out split (val or test) on the device, and the accuracy of heads on it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.metrics import Accuracy, Grouping, Groups
from pipeline.store import Artefact


@dataclass(frozen=True)
class HeldOutSplit:
    """The cached features of a held-out split.

    Attributes:
        features: (n, D) float32.
        label: (n,) int64.
        grouping: its groups, or its classes if groups are unknown.
    """

    features: Tensor
    label: Tensor
    grouping: Grouping

    @classmethod
    def of(cls, features: Artefact, split: Literal["val", "test"], on: torch.device) -> "HeldOutSplit":
        """A split of features.h5, on the device."""
        label = features[f"{split}/label"][:]
        grouping = Groups.of(features).grouping(label, features[f"{split}/attribute"][:])
        original = torch.from_numpy(features[f"{split}/original"][:])
        return cls(original.to(on), torch.from_numpy(label).to(on), grouping)

    def accuracy(self, heads: Heads) -> Accuracy:
        """The accuracy of each head in each group or class, (S, K, names)."""
        correct = heads.logits(self.features).argmax(-1) == self.label
        return self.grouping.accuracy(correct.cpu().numpy())

    def scores(self, heads: Heads) -> tuple[Accuracy, Accuracy]:
        """The worst-group (or worst-class) and the mean accuracy of each head, (S, K) each."""
        return self.grouping.scores(self.accuracy(heads))
