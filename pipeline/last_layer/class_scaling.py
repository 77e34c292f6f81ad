"""Class-specific scaling of ERM (Seo & Han, WACV 2025): nothing is trained.

Each class has one scale. ERM's probabilities are multiplied by the scales, and the highest product is the
answer:

    argmax_c s_c p_c = argmax_c (z_c + log s_c)        so it is ERM's head with another bias

The validation split chooses the scales, one class after another. If there are more than ten classes, only the
ten with the worst groups of ERM are scaled. So at most 10 · 10 · 400 scalings are tried.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import Cached, Fitted, Method
from pipeline.metrics import Accuracy, prefer, worst_classes

CANDIDATES = 400  # of one class, at most
ROUNDS = 10  # over the scaled classes, at most
SCALED = 10  # classes, at most
BLOCK = 2**22  # answers that are counted at once: of some candidates for all rows


def fit(cached: Cached) -> Fitted:
    """One head: nothing is random. With two classes, only the second one's scale is searched."""
    logits = cached.erm.logits(cached.validation.features)[0, 0].double()
    searched = scaled_classes(cached, logits) if cached.classes > 2 else [1]
    near, code = rivals(logits, searched)
    moves = torch.zeros(near.shape[1], dtype=torch.float64, device=logits.device)  # log s
    for _ in range(ROUNDS):
        before = moves.clone()
        for moved in range(len(searched)):
            found = candidates(near, moves, moved)
            moves[moved] = found[prefer(*scores(cached, near, code, moves, moved, found))]
        if torch.equal(moves, before):
            break
    shift = torch.zeros(cached.classes, dtype=torch.float64, device=logits.device)
    shift[searched] = moves[: len(searched)]
    bias = (cached.erm.bias + shift).float()
    return Fitted(Heads(cached.erm.weight, bias), stated(shift))


def scaled_classes(cached: Cached, logits: Tensor) -> list[int]:
    """The classes whose scales are searched: all, or those of ERM's worst groups by the criterion."""
    criterion, label = cached.validation.criterion, cached.validation.label
    accuracy = criterion.accuracy((logits.argmax(1) == label).cpu().numpy())
    found = worst_classes(accuracy, criterion, label.cpu().numpy(), cached.classes, SCALED)
    return [int(c) for c in found]


def rivals(logits: Tensor, searched: list[int]) -> tuple[Tensor, Tensor]:
    """The logits that can be the highest whatever the scales of some classes, and their classes, (n, J) each.

    They are those of the classes `searched`, and last, if there are other classes, the best one of these.

    Args:
        logits: (n, C).
    """
    near, code = logits[:, searched], torch.tensor(searched, device=logits.device).expand(len(logits), -1)
    others = [c for c in range(logits.shape[1]) if c not in searched]
    if not others:
        return near, code
    best, place = logits[:, others].max(1)
    which = torch.tensor(others, device=logits.device)[place]
    return torch.cat([near, best[:, None]], 1), torch.cat([code, which[:, None]], 1)


def stated(shift: Tensor) -> dict[str, object]:
    """The scales in the table: of every class, relative to the first; of many classes, their range."""
    if len(shift) <= SCALED:
        return {"scale": ", ".join(f"{each:.4g}" for each in (shift - shift[0]).exp())}
    scale, count = shift.exp(), int((shift != 0).sum())
    return {"scale": f"{scale.min():.4g} to {scale.max():.4g}, not 1 for {count} of {len(shift)} classes"}


def scores(
    cached: Cached, logits: Tensor, code: Tensor, shift: Tensor, moved: int, found: Tensor
) -> tuple[Accuracy, Accuracy]:
    """The worst and the mean accuracy by the criterion, (K,) each, for K values of log s of one class.

    Args:
        logits, code: (n, J), float64 and int64, from `rivals`: ERM's on the validation split.
        shift: (J,), log s of the other columns.
        moved: the column of the class.
        found: (K,), the values of log s of the class.
    """
    criterion = cached.validation.criterion
    answers = right(logits, code, cached.validation.label, shift, moved, found)
    return criterion.scores(np.concatenate([criterion.accuracy(block) for block in answers]))


def right(
    logits: Tensor, code: Tensor, label: Tensor, shift: Tensor, moved: int, found: Tensor
) -> Iterator[NDArray[np.bool_]]:
    """Whether each scaling is right about each row: blocks of (K, n) bool, without the logits of each.

    Only one class moves. A row's answer is this class if it is above the best of the others, and that one if
    not; of equal ones it is the first class. Arguments as in `scores`.
    """
    others, last = _others(logits, shift, moved), torch.iinfo(code.dtype).max
    best = others.amax(1)
    rival = code.where(others == best[:, None], last).amin(1)
    own_code = code[:, moved]
    for some in found.split(max(1, BLOCK // len(label))):
        own = logits[:, moved] + some[:, None]
        wins = (own > best) | ((own == best) & (own_code < rival))
        yield torch.where(wins, label == own_code, label == rival).cpu().numpy()


def candidates(logits: Tensor, shift: Tensor, moved: int) -> Tensor:
    """The values of log s of one class that are tried, (K,): the present one first, then from near to far.

    A row's answer changes at one value, its threshold. Between two successive thresholds, all values give the
    same answers, so one of them is tried; if there are too many, an even choice of them.

    Args:
        logits: (n, J) float64.
        shift: (J,), log s of all of them at present.
    """
    threshold = (_others(logits, shift, moved).amax(1) - logits[:, moved]).unique()
    between = torch.cat([threshold[:1] - 1, (threshold[1:] + threshold[:-1]) / 2, threshold[-1:] + 1])
    if len(between) >= CANDIDATES:
        between = between[torch.linspace(0, len(between) - 1, CANDIDATES - 1).round().long()]
    near_to_far = (between - shift[moved]).abs().argsort(stable=True)
    return torch.cat([shift[moved][None], between[near_to_far]])


def _others(logits: Tensor, shift: Tensor, moved: int) -> Tensor:
    """The scaled logits of all but one, which gets −∞, (n, J)."""
    others = logits + shift
    others[:, moved] = -torch.inf
    return others


METHOD = Method("Class scaling", "Seo & Han 2025, on ERM", "validation, to choose", fit)
