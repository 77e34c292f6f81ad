"""Heads on one feature whose sign is right: worst group and mean of each are chosen by hand."""

import numpy as np
import torch

from pipeline.last_layer.best_so_far import BestSoFar
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.metrics import Grouping


def heads_of(*biases: float) -> Heads:
    """K heads that see class 1 where the feature is above −bias, (1, K, …)."""
    weight = torch.tensor([[0.0], [1.0]]).expand(1, len(biases), 2, 1)
    bias = torch.stack([torch.zeros(len(biases)), torch.tensor(biases)], 1)[None]
    return Heads(weight.clone(), bias)


# Feature and label of six rows in two groups; the fourth and fifth are on the wrong side of 0.
GROUPS = Grouping("group", ["a", "b"], np.array([0, 0, 0, 0, 1, 1]))
SPLIT = HeldOutSplit(
    torch.tensor([[-3.0], [-2.0], [-1.0], [-0.5], [0.5], [3.0]]),
    torch.tensor([0, 0, 0, 1, 0, 1]),
    GROUPS,
    GROUPS,
)


def test_the_best_epoch_of_each_head_is_kept() -> None:
    best = BestSoFar(SPLIT)
    found = best.offer(1, heads_of(0.0, -9.0))
    np.testing.assert_allclose(GROUPS.accuracy(found[0]), [[0.75, 0.5], [0.75, 0.5]])
    best.offer(2, heads_of(0.0, 0.75))  # 0: the same; 1: same worst group, higher mean
    assert best.epoch.tolist() == [[1, 2]]
    best.offer(3, heads_of(-1.0, -9.0))  # 0: higher worst group; 1: same worst group, lower mean
    assert best.epoch.tolist() == [[3, 2]]
    assert best.heads.bias[0, :, 1].tolist() == [-1.0, 0.75]


def test_what_is_kept_does_not_change_with_what_was_offered() -> None:
    best, offered = BestSoFar(SPLIT), heads_of(0.0)
    best.offer(1, offered)
    offered.bias.fill_(7)
    assert best.heads.bias[0, 0, 1] == 0
