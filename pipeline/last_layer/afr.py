"""Automatic feature reweighting (Qiu et al. 2023): the rows that ERM gets wrong weigh more, and the head stays near ERM's.

    L = Σ_i μ_i CE_i + λ ‖(W, b) − (W, b)_ERM‖²,    μ_i ∝ exp(−γ p_i) / (images of i's class),    p_i ERM's probability of the label

on rows that ERM was not trained on (`train.hold_out`). Full-batch gradient descent from the ERM head, for the whole grid of γ and λ
at once; γ, λ and the step are chosen by the worst group of validation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer.baselines import Cached, Fitted
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.validation import BestSoFar

GAMMAS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)  # the authors': 4 to 20 on Waterbirds, 1 to 3 on CelebA
LAMBDAS = (0.0, 0.1, 0.2, 0.3, 0.4)
LR, STEPS, LOOK_EVERY = 1e-2, 500, 10  # the authors' on Waterbirds


def fit(cached: Cached) -> Fitted:
    """One head: nothing is drawn."""
    rows = cached.held_out if cached.held_out.any() else torch.ones_like(cached.held_out)
    note = "" if cached.held_out.any() else "on images that ERM was trained on: none was held out (train.hold_out)"
    x, label = cached.views.original[rows], cached.views.label[rows]
    probability = cached.erm.logits(x)[0, 0].softmax(-1)[torch.arange(len(label)), label]
    grid = [(gamma, penalty) for gamma in GAMMAS for penalty in LAMBDAS]
    weight = torch.stack([row_weights(probability, label, gamma) for gamma, _ in grid])
    penalty = torch.tensor([penalty for _, penalty in grid], device=x.device)
    best = descend(x, label, weight, penalty, cached.erm, BestSoFar(cached.validation))
    k = int(cached.validation.prefers(best.heads)[0])
    gamma, chosen = grid[k]
    heads = Heads(best.heads.weight[:, k : k + 1], best.heads.bias[:, k : k + 1])
    return Fitted(heads, {"gamma": gamma, "lambda": chosen, "step": int(best.epoch[0, k])}, note)


def row_weights(probability: Tensor, label: Tensor, gamma: float) -> Tensor:
    """μ (n,), 1 in sum, from ERM's probability (n,) of each row's label (n,)."""
    weight = torch.exp(-gamma * probability) / torch.bincount(label)[label]
    return weight / weight.sum()


def objective(x: Tensor, label: Tensor, weight: Tensor, penalty: Tensor, heads: Heads, erm: Heads) -> Tensor:
    """L of each of K heads, (K,).

    Args:
        x: (n, D). label: (n,).
        weight: (K, n) μ. penalty: (K,) λ.
        heads: (1, K, …). erm: (1, 1, …).
    """
    logits = heads.logits(x)[0]  # (K, n, C)
    loss = F.cross_entropy(logits.transpose(1, 2), label.expand(len(logits), -1), reduction="none")
    distance = (heads.weight - erm.weight).square().sum((2, 3))[0] + (heads.bias - erm.bias).square().sum(2)[0]
    return (weight * loss).sum(1) + penalty * distance


def descend(
    x: Tensor, label: Tensor, weight: Tensor, penalty: Tensor, erm: Heads, best: BestSoFar, lr: float = LR, steps: int = STEPS
) -> BestSoFar:
    """Gradient descent of all heads from the ERM head; `best` looks at them every LOOK_EVERY steps, first at ERM's itself."""
    shape = (1, len(penalty))
    heads = Heads(erm.weight.expand(*shape, -1, -1).clone(), erm.bias.expand(*shape, -1).clone())
    best.offer(0, heads)
    for step in range(1, steps + 1):
        parameters = Heads(heads.weight.requires_grad_(), heads.bias.requires_grad_())
        loss = objective(x, label, weight, penalty, parameters, erm).sum()
        by_weight, by_bias = torch.autograd.grad(loss, (parameters.weight, parameters.bias))
        heads = Heads(parameters.weight.detach() - lr * by_weight, parameters.bias.detach() - lr * by_bias)
        if step % LOOK_EVERY == 0:
            best.offer(step, heads)
    return best
