"""The cross-entropy of softmax regression and its gradient, for every solver.

Each solver lays out its logits in its own way; `axis` is the axis of their C classes. Labels are given as
`onehot`: 1 at the row's class and 0 at the others, in a shape that can be broadcast to that of the logits.
"""

from torch import Tensor


def cross_entropy(logits: Tensor, onehot: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy and log-probabilities.

    Returns:
        −log p of the label, in the shape of the logits without `axis`; log p of every class, in their shape.
    """
    log_p = logits.log_softmax(axis)
    return -(log_p * onehot).sum(axis), log_p


def gradient_(log_p: Tensor, onehot: Tensor, weight: Tensor) -> Tensor:
    """∂/∂logits of Σ weight · cross-entropy, which is weight · (p − onehot). It is written over `log_p`.

    Args:
        log_p, onehot: as in `cross_entropy`.
        weight: the weight of each cross-entropy, with an axis of 1 in place of the classes.
    """
    return log_p.exp_().sub_(onehot).mul_(weight)
