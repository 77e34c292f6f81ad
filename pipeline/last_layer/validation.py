"""The validation split, and model selection on it: worst group first, then the mean (paper section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.metrics import Grouping, Groups, group_accuracy, weighted_mean, worst_group
from pipeline.store import Artefact


@dataclass(frozen=True)
class Validation:
    """The validation split, on the device: features (n, D), label (n,), group (n,) or class where groups are unknown."""

    features: Tensor
    label: Tensor
    group: Tensor
    grouping: Grouping

    @classmethod
    def of(cls, features: Artefact, on: torch.device) -> "Validation":
        """The validation split of features.h5."""
        grouping = Groups.of(features).grouping(features["val/label"][:], features["val/attribute"][:])
        original, label, group = (
            torch.from_numpy(part).to(on) for part in (features["val/original"][:], features["val/label"][:], grouping.index)
        )
        return cls(original, label, group, grouping)

    def accuracy(self, heads: Heads) -> Tensor:
        """(S, K, groups or classes) float64."""
        return group_accuracy(heads.logits(self.features).argmax(-1) == self.label, self.group, len(self.grouping.names))

    def scores(self, accuracy: Tensor) -> tuple[Tensor, Tensor]:
        """Worst-group (or worst-class) and mean accuracy, (S, K) each: what model selection looks at, in this order."""
        return worst_group(accuracy), weighted_mean(accuracy, torch.bincount(self.group, minlength=len(self.grouping.names)))

    def prefers(self, heads: Heads) -> Tensor:
        """(S,) int64 on the CPU: which of each seed's K heads is best; of equal ones the first."""
        worst, mean = (score.tolist() for score in self.scores(self.accuracy(heads)))
        return torch.tensor([max(range(len(w)), key=lambda k: (w[k], m[k], -k)) for w, m in zip(worst, mean, strict=True)])


class BestSoFar:
    """Each of (S, K) heads at the epoch with its best validation score; of equal ones the earlier."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation
        self._scores: tuple[Tensor, Tensor] | None = None
        self.heads: Heads
        self.epoch: Tensor  # (S, K) int64

    def offer(self, epoch: int, heads: Heads) -> Tensor:
        """Take over those heads that are better; return the accuracy of all, (S, K, groups)."""
        accuracy = self._validation.accuracy(heads)
        worst, mean = self._validation.scores(accuracy)
        if self._scores is None:
            self.heads = Heads(heads.weight.clone(), heads.bias.clone())
            self.epoch = torch.full(worst.shape, epoch, dtype=torch.int64)
            self._scores = worst, mean
            return accuracy
        better = (worst > self._scores[0]) | ((worst == self._scores[0]) & (mean > self._scores[1]))
        self.heads.weight[better], self.heads.bias[better], self.epoch[better.cpu()] = heads.weight[better], heads.bias[better], epoch
        self._scores = torch.where(better, worst, self._scores[0]), torch.where(better, mean, self._scores[1])
        return accuracy
