"""Selective last-layer finetuning (SELF) on early-stop disagreement (LaBonte, Muthukumar & Kumar 2023).

The rows on which ERM and ERM as it was after an early epoch disagree the most are taken. The early network
has learnt the shortcut alone, so rows of a minority group are frequent among them:

    KL(p_early ‖ p_ERM) = Σ_c p_early,c (log p_early,c − log p_ERM,c)        the n rows where it is highest

ERM's head is trained further on them, with the same total weight for every class that they have. All settings
of the early epoch, n and the learning rate are fitted at once, and the validation split chooses. Divergence,
choices, momentum and steps are those of the authors' code (github.com/tmlabonte/last-layer-retraining:
milkshake/datamodules/disagreement.py, exps/disagreement.py). It draws batches with balanced classes; here
every step sees all n rows, which is the mean of such batches, so nothing is random. Its weight decay of 1e-4
is left out.

The rows are those that ERM was not trained on (`train.hold_out`); the authors hold out a part of validation.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy, gradient_
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.views import numbers
from pipeline.metrics import prefer

SIZES = (20, 100, 500)  # n
RATES = (1e-4, 1e-3, 1e-2)
MOMENTUM, STEPS = 0.9, 250


def fit(cached: Cached) -> Fitted:
    """One head: nothing is random.

    Raises:
        NotApplicableError: no epoch before ERM's own was kept.
    """
    if not cached.early:
        raise NotApplicableError("needs the predictions of an epoch before ERM's own (train.keep_epochs)")
    rows, note = cached.held_out()
    label, logits = cached.views.label[rows], cached.views.logits(cached.erm, rows)[0, 0]
    sizes = [n for n in SIZES if n <= len(label)] or [len(label)]
    order = {epoch: by_disagreement(early[rows], logits) for epoch, early in cached.early.items()}
    settings = list(product(order, sizes, RATES))
    weight = torch.stack([balanced(order[epoch][:n], label) for epoch, n, _ in settings])
    rate = torch.tensor([rate for _, _, rate in settings], device=label.device)
    used = weight.any(0)
    x = cached.views.take(numbers(rows)[used])
    heads = finetuned(x, label[used], weight[:, used], rate, cached.erm)
    worst, mean = cached.validation.scores(heads)
    best = prefer(worst[0], mean[0])
    epoch, n, lr = settings[best]
    missing = len(label.unique()) - len(label[weight[best] > 0].unique())
    if missing:
        alone = f"{missing} of {cached.classes} classes have no image in the disagreement set"
        note = f"{note}; {alone}" if note else alone
    return Fitted(heads.of_setting(best), {"epoch": epoch, "n": n, "lr": lr}, note)


def by_disagreement(early: Tensor, erm: Tensor) -> Tensor:
    """The rows by KL(p_early ‖ p_ERM), the highest first, ties in order, (n,) int64; of logits (n, C)."""
    log_early, log_erm = early.double().log_softmax(1), erm.double().log_softmax(1)
    divergence = (log_early.exp() * (log_early - log_erm)).sum(1)
    return divergence.argsort(descending=True, stable=True)


def balanced(chosen: Tensor, label: Tensor) -> Tensor:
    """The weights (n,), with the sum 1, of the rows `chosen`: every class among them weighs alike."""
    weight = torch.zeros(len(label), device=label.device)
    weight[chosen] = 1 / torch.bincount(label[chosen])[label[chosen]]
    return weight / weight.sum()


def finetuned(
    x: Tensor, label: Tensor, weight: Tensor, rate: Tensor, start: Heads, steps: int = STEPS
) -> Heads:
    """K heads, (1, K, …), after some steps of gradient descent with momentum from the head `start`.

    Args:
        x: (n, D).
        label: (n,) int64.
        weight: (K, n), the weight of each row's cross-entropy in the loss of each head.
        rate: (K,), learning rates.
        start: (1, 1, …).
    """
    shape, lr = (1, len(rate)), rate[None, :, None]
    heads = Heads(start.weight.expand(*shape, -1, -1).clone(), start.bias.expand(*shape, -1).clone())
    speed = Heads(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
    onehot = F.one_hot(label, start.bias.shape[-1]).T.float()  # (C, n)
    for _ in range(steps):
        _, log_p = cross_entropy(heads.logits(x).transpose(2, 3), onehot, axis=2)  # (1, K, C, n)
        by_logits = gradient_(log_p, onehot, weight[:, None])
        speed.weight.mul_(MOMENTUM).add_(by_logits @ x)
        speed.bias.mul_(MOMENTUM).add_(by_logits.sum(3))
        heads.weight.sub_(lr[..., None] * speed.weight)
        heads.bias.sub_(lr * speed.bias)
    return heads


METHOD = Method("SELF", "LaBonte et al. 2023, by early-stop disagreement", "validation, to choose", fit)
