"""The validation split, and model selection on it: worst group first, then the mean (paper section 4.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.metrics import Accuracy, Grouping, Groups, group_accuracy, weighted_mean, worst_group
from pipeline.store import Artefact


@dataclass(frozen=True)
class Validation:
    """The validation split: features (n, D) and label (n,), on the device; its groups, or classes where groups are unknown."""

    features: Tensor
    label: Tensor
    grouping: Grouping

    @classmethod
    def of(cls, features: Artefact, on: torch.device) -> "Validation":
        """The validation split of features.h5."""
        grouping = Groups.of(features).grouping(features["val/label"][:], features["val/attribute"][:])
        original, label = (torch.from_numpy(features[f"val/{name}"][:]).to(on) for name in ("original", "label"))
        return cls(original, label, grouping)

    def accuracy(self, heads: Heads) -> Accuracy:
        """(S, K, groups or classes)."""
        correct = heads.logits(self.features).argmax(-1) == self.label
        return group_accuracy(correct.cpu().numpy(), self.grouping.index, len(self.grouping.names))

    def scores(self, accuracy: Accuracy) -> tuple[Accuracy, Accuracy]:
        """Worst-group (or worst-class) and mean accuracy, (S, K) each: what model selection looks at, in this order."""
        return worst_group(accuracy), weighted_mean(accuracy, self.grouping.count)

    def prefers(self, heads: Heads) -> Tensor:
        """(S,) int64 on the CPU: which of each seed's K heads is best; of equal ones the first."""
        worst, mean = (score.tolist() for score in self.scores(self.accuracy(heads)))
        return torch.tensor([max(range(len(w)), key=lambda k: (w[k], m[k], -k)) for w, m in zip(worst, mean, strict=True)])


class BestSoFar:
    """Each of (S, K) heads at the epoch with its best validation score; of equal ones the earlier."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation
        self._scores: tuple[Accuracy, Accuracy] | None = None
        self.heads: Heads
        self.epoch: Tensor  # (S, K) int64

    def offer(self, epoch: int, heads: Heads) -> Accuracy:
        """Take over those heads that are better; return the accuracy of all, (S, K, groups)."""
        accuracy = self._validation.accuracy(heads)
        worst, mean = self._validation.scores(accuracy)
        if self._scores is None:
            self.heads = Heads(heads.weight.clone(), heads.bias.clone())
            self.epoch = torch.full(worst.shape, epoch, dtype=torch.int64)
            self._scores = worst, mean
            return accuracy
        better = (worst > self._scores[0]) | ((worst == self._scores[0]) & (mean > self._scores[1]))
        self.epoch[torch.from_numpy(better)] = epoch
        there = torch.from_numpy(better).to(heads.bias.device)
        self.heads.weight[there], self.heads.bias[there] = heads.weight[there], heads.bias[there]
        self._scores = np.where(better, worst, self._scores[0]), np.where(better, mean, self._scores[1])
        return accuracy
