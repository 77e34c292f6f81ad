"""Automatic feature reweighting (Qiu et al. 2023).

Rows to whose label ERM gives a low probability weigh more, and the head stays near ERM's:

    L = Σ_i μ_i CE_i + λ ‖(W, b) − (W, b)_ERM‖²
    μ_i ∝ exp(−γ p_i) / (images of i's class),    p_i is ERM's probability of i's label

The rows are those that ERM was not trained on (`train.hold_out`). All pairs of γ and λ are fitted at once by
full-batch gradient descent, starting from the ERM head. The validation split chooses γ, λ and the step.
"""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from pipeline.last_layer.best_so_far import BestSoFar
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy, one_hot
from pipeline.last_layer.method import Cached, Fitted, Method
from pipeline.metrics import prefer

# γ: the authors use 4 to 20 on Waterbirds and 1 to 3 on CelebA.
GAMMAS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)
LAMBDAS = (0.0, 0.1, 0.2, 0.3, 0.4)
LR, STEPS = 1e-2, 500  # as the authors use on Waterbirds
LOOK_EVERY = 10  # steps between two looks at the validation split


def fit(cached: Cached) -> Fitted:
    """One head: nothing is random."""
    rows, note = cached.held_out()
    views, label = cached.views, cached.views.label[rows]
    probability = views.logits(cached.erm, rows)[0, 0].softmax(-1)[torch.arange(len(label)), label]
    settings = list(product(GAMMAS, LAMBDAS))
    weight = torch.stack([row_weights(probability, label, gamma) for gamma, _ in settings])
    penalty = torch.tensor([penalty for _, penalty in settings], device=label.device)
    best = BestSoFar(cached.validation)
    descend(views.repeated(rows), label, weight, penalty, cached.erm, best)
    worst, mean = cached.validation.scores(best.heads)
    k = prefer(worst[0], mean[0])
    gamma, chosen = settings[k]
    step = int(best.epoch[0, k])
    return Fitted(best.heads.of_setting(k), {"gamma": gamma, "lambda": chosen, "step": step}, note)


def row_weights(probability: Tensor, label: Tensor, gamma: float) -> Tensor:
    """The weights μ (n,), with the sum 1, from ERM's probability (n,) of each row's label (n,)."""
    weight = torch.exp(-gamma * probability) / torch.bincount(label)[label]
    return weight / weight.sum()


def weighted_loss(x: Tensor, onehot: Tensor, weight: Tensor, heads: Heads) -> Tensor:
    """Σ μ CE over some rows, of each of K heads, (K,).

    Args:
        x: (n, D).
        onehot: (C, n), the labels.
        weight: (K, n), μ.
        heads: (1, K, …).
    """
    logits = heads.logits(x)[0].transpose(1, 2)  # (K, C, n)
    loss, _ = cross_entropy(logits, onehot, axis=1)
    return (weight * loss).sum(1)


def distance(heads: Heads, erm: Heads) -> Tensor:
    """‖(W, b) − (W, b)_ERM‖² of each of K heads (1, K, …), (K,)."""
    weight = (heads.weight - erm.weight).square().sum((2, 3))[0]
    return weight + (heads.bias - erm.bias).square().sum(2)[0]


def descend(
    read: Callable[[], Iterator[Tensor]],
    label: Tensor,
    weight: Tensor,
    penalty: Tensor,
    erm: Heads,
    best: BestSoFar,
    lr: float = LR,
    steps: int = STEPS,
) -> None:
    """Gradient descent of all heads from the ERM head.

    `best` gets the ERM head as step 0, then the heads after every LOOK_EVERY steps.

    Args:
        read: begins to read the n rows: successive blocks (b, D).
        label: (n,) int64.
        weight: (K, n), μ.
        penalty: (K,), λ.
        erm: (1, 1, …).
    """
    shape = (1, len(penalty))
    heads = Heads(erm.weight.expand(*shape, -1, -1).clone(), erm.bias.expand(*shape, -1).clone())
    classes = erm.bias.shape[-1]
    best.offer(0, heads)
    for step in range(1, steps + 1):
        parameters = heads.weight.requires_grad_(), heads.bias.requires_grad_()
        loss, done = (penalty * distance(heads, erm)).sum(), 0
        by_weight, by_bias = torch.autograd.grad(loss, parameters)
        for x in read():
            here = slice(done, done + len(x))
            onehot = one_hot(label[here], classes).T.contiguous()
            loss, done = weighted_loss(x, onehot, weight[:, here], heads).sum(), here.stop
            for total, part in zip((by_weight, by_bias), torch.autograd.grad(loss, parameters), strict=True):
                total += part
        heads = Heads(heads.weight.detach() - lr * by_weight, heads.bias.detach() - lr * by_bias)
        if step % LOOK_EVERY == 0:
            best.offer(step, heads)


METHOD = Method("AFR", "Qiu et al. 2023", "validation, to choose", fit)
