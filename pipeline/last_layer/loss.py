"""The cross-entropy of softmax regression and its gradient, for every solver.

Each solver has its own order of axes; `axis` is the one with the C classes. Labels are given as `onehot`: 1
for the row's class and 0 for the others, in a shape that broadcasts to the shape of the logits.
"""

import torch
from torch import Tensor


def one_hot(label: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Labels (…) int64 as (…, C): 1 for the class and 0 for the others. Not for all rows: it is large."""
    return (label[..., None] == torch.arange(classes, device=label.device)).to(dtype)


def cross_entropy(logits: Tensor, onehot: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy and log-probabilities.

    Returns:
        −log p of the label, in the shape of the logits without `axis`.
        log p of every class, in the shape of the logits.
    """
    log_p = logits.log_softmax(axis)
    return -(log_p * onehot).sum(axis), log_p


def gradient_(log_p: Tensor, onehot: Tensor, weight: Tensor) -> Tensor:
    """∂/∂logits of Σ weight · cross-entropy, which is weight · (p − onehot). It overwrites `log_p`.

    Args:
        log_p, onehot: as in `cross_entropy`.
        weight: the weight of each cross-entropy, with length 1 along the axis of the classes.
    """
    return log_p.exp_().sub_(onehot).mul_(weight)
