"""Which epoch of a fit is kept: the best one on the validation split (paper section 4.2)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.metrics import Accuracy, better


class BestSoFar:
    """Keeps each of (S, K) heads at its best epoch on the validation split, by the split's criterion.

    Attributes:
        heads: the kept heads.
        epoch: (S, K) int64 on the CPU, the epoch of each kept head.
    """

    heads: Heads
    epoch: Tensor

    def __init__(self, validation: HeldOutSplit) -> None:
        self._validation = validation
        self._worst: Accuracy | None = None
        self._mean: Accuracy

    def offer(self, epoch: int, heads: Heads) -> NDArray[np.bool_]:
        """Keep the heads that are better than the kept ones; return where each of all is right, (S, K, n)."""
        correct, criterion = self._validation.correct(heads), self._validation.criterion
        worst, mean = criterion.scores(criterion.accuracy(correct))
        if self._worst is None:
            self.heads = Heads(heads.weight.clone(), heads.bias.clone())
            self.epoch = torch.full(worst.shape, epoch, dtype=torch.int64)
            self._worst, self._mean = worst, mean
            return correct
        is_better = better(worst, mean, self._worst, self._mean)
        self._worst, self._mean = (
            np.where(is_better, worst, self._worst),
            np.where(is_better, mean, self._mean),
        )
        there = torch.from_numpy(is_better)
        self.epoch[there] = epoch
        there = there.to(heads.bias.device)
        self.heads.weight[there] = heads.weight[there]
        self.heads.bias[there] = heads.bias[there]
        return correct
