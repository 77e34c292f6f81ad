"""Automatic feature reweighting (Qiu et al. 2023).

Rows to whose label ERM gives a low probability weigh more, and the head stays near ERM's:

    L = Σ_i μ_i CE_i + λ ‖(W, b) − (W, b)_ERM‖²
    μ_i ∝ exp(−γ p_i) / (images of i's class),    p_i is ERM's probability of i's label

The rows are those that ERM was not trained on (`train.hold_out`). All pairs of γ and λ are fitted at once by
full-batch gradient descent, starting from the ERM head. The validation split chooses γ, λ and the step.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer.best_so_far import BestSoFar
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy
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
    x, label = cached.views.original[rows], cached.views.label[rows]
    probability = cached.erm.logits(x)[0, 0].softmax(-1)[torch.arange(len(label)), label]
    settings = list(product(GAMMAS, LAMBDAS))
    weight = torch.stack([row_weights(probability, label, gamma) for gamma, _ in settings])
    penalty = torch.tensor([penalty for _, penalty in settings], device=x.device)
    best = descend(x, label, weight, penalty, cached.erm, BestSoFar(cached.validation))
    worst, mean = cached.validation.scores(best.heads)
    k = prefer(worst[0], mean[0])
    gamma, chosen = settings[k]
    step = int(best.epoch[0, k])
    return Fitted(best.heads.of_setting(k), {"gamma": gamma, "lambda": chosen, "step": step}, note)


def row_weights(probability: Tensor, label: Tensor, gamma: float) -> Tensor:
    """The weights μ (n,), with the sum 1, from ERM's probability (n,) of each row's label (n,)."""
    weight = torch.exp(-gamma * probability) / torch.bincount(label)[label]
    return weight / weight.sum()


def objective(x: Tensor, onehot: Tensor, weight: Tensor, penalty: Tensor, heads: Heads, erm: Heads) -> Tensor:
    """The loss L of each of K heads, (K,).

    Args:
        x: (n, D).
        onehot: (C, n), the labels.
        weight: (K, n), μ.
        penalty: (K,), λ.
        heads: (1, K, …).
        erm: (1, 1, …).
    """
    logits = heads.logits(x)[0].transpose(1, 2)  # (K, C, n)
    loss, _ = cross_entropy(logits, onehot, axis=1)
    weight_distance = (heads.weight - erm.weight).square().sum((2, 3))[0]
    bias_distance = (heads.bias - erm.bias).square().sum(2)[0]
    return (weight * loss).sum(1) + penalty * (weight_distance + bias_distance)


def descend(
    x: Tensor,
    label: Tensor,
    weight: Tensor,
    penalty: Tensor,
    erm: Heads,
    best: BestSoFar,
    lr: float = LR,
    steps: int = STEPS,
) -> BestSoFar:
    """Gradient descent of all heads from the ERM head.

    `best` gets the ERM head as step 0, then the heads after every LOOK_EVERY steps. It is returned.
    """
    shape = (1, len(penalty))
    heads = Heads(erm.weight.expand(*shape, -1, -1).clone(), erm.bias.expand(*shape, -1).clone())
    onehot = F.one_hot(label, erm.bias.shape[-1]).T.float().contiguous()
    best.offer(0, heads)
    for step in range(1, steps + 1):
        parameters = Heads(heads.weight.requires_grad_(), heads.bias.requires_grad_())
        loss = objective(x, onehot, weight, penalty, parameters, erm).sum()
        by_weight, by_bias = torch.autograd.grad(loss, (parameters.weight, parameters.bias))
        heads = Heads(parameters.weight.detach() - lr * by_weight, parameters.bias.detach() - lr * by_bias)
        if step % LOOK_EVERY == 0:
            best.offer(step, heads)
    return best


METHOD = Method("AFR", "Qiu et al. 2023", "validation, to choose", fit)
