"""Class-specific scaling of ERM (Seo & Han, WACV 2025): nothing is trained.

Each class has one scale. ERM's probabilities are multiplied by the scales, and the highest product is the
answer:

    argmax_c s_c p_c = argmax_c (z_c + log s_c)        so it is ERM's head with another bias

The validation split chooses the scales, one class after another.
"""

import torch
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import Cached, Fitted, Method
from pipeline.metrics import prefer

CANDIDATES = 400  # of one class, at most
ROUNDS = 10  # over all classes, at most


def fit(cached: Cached) -> Fitted:
    """One head: nothing is random. With two classes, only the second one's scale is searched."""
    logits = cached.erm.logits(cached.validation.features)[0, 0].double()
    shift = torch.zeros(cached.classes, dtype=torch.float64, device=logits.device)  # log s
    searched = range(cached.classes) if cached.classes > 2 else [1]
    for _ in range(ROUNDS):
        before = shift
        for moved in searched:
            found = candidates(logits, shift, moved)
            shifts = shift.repeat(len(found), 1)
            shifts[:, moved] = found
            worst, mean = cached.validation.scores(shifted(cached.erm, shifts))
            shift = shifts[prefer(worst[0], mean[0])]
        if torch.equal(shift, before):
            break
    scale = [float(f"{each:.4g}") for each in (shift - shift[0]).exp()]
    return Fitted(shifted(cached.erm, shift[None]), {"scale": [scale]})


def shifted(erm: Heads, shifts: Tensor) -> Heads:
    """ERM's head with log s of K scalings, (K, C), added to the bias: (1, K, …)."""
    weight = erm.weight.expand(1, len(shifts), -1, -1)
    return Heads(weight, (erm.bias + shifts).float())


def candidates(logits: Tensor, shift: Tensor, moved: int) -> Tensor:
    """The values of log s of one class that are tried, (K,): the present one first, then from near to far.

    A row's answer changes at one value, its threshold. Between two successive thresholds, all values give the
    same answers, so one of them is tried; if there are too many, an even choice of them.

    Args:
        logits: (n, C) float64.
        shift: (C,), log s of all classes at present.
    """
    others = logits + shift
    others[:, moved] = -torch.inf
    threshold = (others.amax(1) - logits[:, moved]).unique()
    between = torch.cat([threshold[:1] - 1, (threshold[1:] + threshold[:-1]) / 2, threshold[-1:] + 1])
    if len(between) >= CANDIDATES:
        between = between[torch.linspace(0, len(between) - 1, CANDIDATES - 1).round().long()]
    near_to_far = (between - shift[moved]).abs().argsort(stable=True)
    return torch.cat([shift[moved][None], between[near_to_far]])


METHOD = Method("Class scaling", "Seo & Han 2025, on ERM", "validation, to choose", fit)
