"""Fitting many linear heads at once on precomputed features (paper equations 3 to 6).

    L = CE(φ) + α CE(φ_masked) + β CE(φ_combined) + l2 Σ W²     in the head's W and b alone

Heads are laid out (S, K): S seeds, which differ in the order of their batches, times K settings of (α, β).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam


@dataclass(frozen=True)
class Views:
    """The retraining set on the device.

    Attributes:
        table: (T, D) float32, features of all views one below another, so that any batch is one gather: the M originals, then, unless
            they are left out, R · M masked and R · M combined.
        label: (M,) int64. batch: (R, M) int64, the batch of each row in each draw.
        weight: (M,) float32 weight of each row in every loss term, 1 on average.
    """

    table: Tensor
    label: Tensor
    batch: Tensor
    weight: Tensor

    @property
    def original(self) -> Tensor:
        """(M, D)."""
        return self.table[: len(self.label)]

    @property
    def interventions(self) -> Tensor:
        """(2, R, M, D): masked, combined."""
        return self.table[len(self.label) :].view(2, *self.batch.shape, -1)


@dataclass(frozen=True)
class Heads:
    """weight (S, K, C, D) and bias (S, K, C)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> "Heads":
        """One head, (C, D) and (C,), or S heads, (S, C, D) and (S, C), of one setting."""
        shape = (-1, 1, *bias.shape[-1:])
        return cls(torch.from_numpy(weight).reshape(*shape, weight.shape[-1]), torch.from_numpy(bias).reshape(shape))

    def to(self, device: torch.device) -> "Heads":
        return Heads(self.weight.to(device), self.bias.to(device))

    def averaged(self, members: int) -> "Heads":
        """(S · members, K, …) to (S, K, …): the mean of each run of `members` heads."""
        return Heads(*(part.unflatten(0, (-1, members)).mean(1) for part in (self.weight, self.bias)))

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) to (S, K, N, C), in one matrix product."""
        flat = F.linear(features, self.weight.flatten(0, 2), self.bias.flatten())
        return flat.view(len(features), *self.bias.shape).permute(1, 2, 0, 3)


class NotFiniteError(ArithmeticError):
    """The loss of a head is NaN or infinite: `str(error)` says what it is, in which epoch and batch (from 1), and of which seed."""

    def __init__(self, loss: float, epoch: int, batch: int, seed: int) -> None:
        super().__init__(f"the loss is {loss} in epoch {epoch}, batch {batch}, seed {seed}")


@dataclass(frozen=True)
class Adam:
    """The paper's solver: Adam with StepLR over the draws' batches."""

    epochs: int
    lr: float
    lr_step: int
    lr_gamma: float


def class_weights(label: Tensor, classes: int, how: Literal["none", "balanced"]) -> Tensor:
    """(M,) row weights: 1, or M / (classes · count of the row's class)."""
    if how == "none":
        return torch.ones(len(label), device=label.device)
    count = torch.bincount(label, minlength=classes).float()
    return len(label) / (classes * count)[label]


def batch_order(seed: int, epoch: int, batches: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The order in which `seed` visits the batches of its draw in `epoch` (from 0)."""
    return np.random.default_rng([seed, epoch]).permutation(batches)


def draw_of(seed: int, epoch: int, draws: int) -> int:
    """The draw that `seed` uses in `epoch` (from 0): seed 0 uses draw epoch mod R, the next seed starts one later."""
    return (epoch + seed) % draws


def _terms(views: Views, alpha: Tensor, beta: Tensor) -> tuple[list[int], Tensor]:
    """The loss terms that weigh anything, of (original, masked, combined), and their weights (V, K)."""
    weights = torch.stack([torch.ones_like(alpha), alpha, beta])
    used = [term for term in range(3) if bool((weights[term] != 0).any())]
    return used, weights[used]


# From the losses (S, V, B, K) of a batch's rows in every term, each row's share (S, B) of the batch, the terms' weights (V, K) and the
# rows (S, B): the weight (S, V, B, K) of each loss in its head's.
Weigh = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mean_of_batch(loss: Tensor, share: Tensor, term_weight: Tensor, rows: Tensor) -> Tensor:
    """A head's loss is the sum of the terms, each the mean over the batch (paper equation 6)."""
    return share[:, None, :, None] * term_weight[:, None]


@torch.no_grad()
def fit_adam(
    views: Views, alpha: Tensor, beta: Tensor, seeds: list[int], start: Heads, l2: float, solver: Adam,
    after_epoch: Callable[[int, Heads, Tensor], None], weigh: Weigh = mean_of_batch,
) -> None:  # fmt: skip
    """Fit S·K heads in one pass over the features an epoch.

    Epoch e of seed s visits the batches of draw `draw_of(s, e)` in the order `batch_order(s, e)`. A head's loss is the weighted sum
    of its batch's losses; heads do not touch each other, so each is what it would be if fitted alone. The gradient of softmax
    regression is written out: with x (V·B, D) the views of a batch, p its probabilities and w the weights of its losses,
    ∂L/∂W = (w (p − onehot y))ᵀ x.

    Args:
        alpha, beta: (K,).
        start: the heads to start from, (1 or S, 1 or K, …).
        after_epoch: called with the epoch (from 0), the heads, and the mean training loss (S, K).
        weigh: the weights of a batch's losses.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
    """
    device, classes, width = views.table.device, start.bias.shape[-1], views.table.shape[1]
    count, many, rows_of_a_table = len(seeds), len(alpha), len(views.label)
    # Classes before settings: a softmax over an inner axis of two is slow.
    shape = (count, classes, many)
    weight = start.weight.transpose(1, 2).expand(*shape, width).clone(memory_format=torch.contiguous_format).requires_grad_()
    bias = start.bias.transpose(1, 2).expand(shape).clone(memory_format=torch.contiguous_format).requires_grad_()
    weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    # Adam's function: the class torch.optim.Adam imports all of TorchDynamo, which takes as long as the fit of five heads.
    averages, squares = ([torch.zeros_like(part) for part in (weight, bias)] for _ in range(2))
    steps = [torch.zeros((), device=device) for _ in range(2)]
    flat_weight, flat_bias, weight_grad, bias_grad = (
        part.view(count, classes * many, -1) for part in (weight, bias, weight.grad, bias.grad)
    )
    used, term_weight = _terms(views, alpha, beta)
    draws, members = len(views.batch), torch.stack([_members(batch) for batch in views.batch])
    onehot = F.one_hot(views.label, classes).float()
    for epoch in range(solver.epochs):
        lr = solver.lr * solver.lr_gamma ** (epoch // solver.lr_step)
        draw = torch.tensor([draw_of(seed, epoch, draws) for seed in seeds], device=device)
        order = torch.from_numpy(np.stack([batch_order(seed, epoch, members.shape[1]) for seed in seeds])).to(device)  # (S, batches)
        all_rows = members[draw[:, None], order]  # (S, batches, B), −1 where the batch is shorter
        # Where the terms of each seed's draw begin in the table, (S, V, 1).
        begin = torch.stack([torch.zeros_like(draw), 1 + draw, 1 + draws + draw], 1)[:, used, None] * rows_of_a_table
        losses = torch.empty(all_rows.shape[1], count, many, device=device)
        for step, rows in enumerate(all_rows.unbind(1)):  # (S, B)
            present = rows >= 0
            share = views.weight[rows] * present / present.sum(1, keepdim=True)  # (S, B)
            x = views.table[(begin + rows.clamp(min=0)[:, None]).flatten(1)]  # (S, V·B, D)
            logits = torch.baddbmm(flat_bias.mT, x, flat_weight.mT).view(count, len(used), -1, classes, many)
            log_p = logits.log_softmax(3)  # (S, V, B, C, K)
            y = onehot[rows][:, None, :, :, None]
            loss = -(log_p * y).sum(3)  # (S, V, B, K)
            share_of_head = weigh(loss, share, term_weight, rows)
            by_logits = log_p.exp_().sub_(y).mul_(share_of_head[:, :, :, None]).view(count, -1, classes * many)
            torch.bmm(by_logits.mT, x, out=weight_grad)
            torch.sum(by_logits, 1, out=bias_grad[..., 0])
            torch.sum(loss * share_of_head, (1, 2), out=losses[step])
            if l2:
                weight.grad.add_(weight, alpha=2 * l2)
                losses[step] += l2 * weight.square().sum((1, 3))
            adam(
                [weight, bias], [weight.grad, bias.grad], averages, squares, [], steps, fused=True,
                lr=lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False,
            )  # fmt: skip
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step, s, k = bad[0].tolist()
            raise NotFiniteError(losses[step, s, k].item(), epoch + 1, step + 1, seeds[s])
        after_epoch(epoch, Heads(weight.detach().transpose(1, 2), bias.detach().transpose(1, 2)), losses.mean(0))


def _members(batch: Tensor) -> Tensor:
    """(M,) batch numbers to (batches, B) rows, −1 behind the end of a shorter batch."""
    count = torch.bincount(batch)
    order = torch.argsort(batch, stable=True)
    place = torch.arange(len(batch), device=batch.device) - (count.cumsum(0) - count)[batch[order]]
    rows = torch.full((len(count), int(count.max())), -1, device=batch.device)
    rows[batch[order], place] = order
    return rows


def fit_lbfgs(views: Views, alpha: float, beta: float, classes: int, l2: float, max_iterations: int = 500) -> tuple[Heads, float]:
    """Solve the convex problem: full batch, masked and combined terms averaged over all draws. Deterministic.

    Returns:
        The heads (1, 1, …) and the loss at the minimum.
    """
    device, width = views.original.device, views.original.shape[1]
    # Features are multiplied in float32; losses and the solver's own vectors are float64, so that its line search sees progress.
    parameters = torch.zeros(classes, width + 1, dtype=torch.float64, device=device, requires_grad=True)
    tables = [(views.original, 1.0)]
    if alpha or beta:
        tables += [(table.flatten(0, 1), term) for table, term in zip(views.interventions, (alpha, beta), strict=True) if term]
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=max_iterations, tolerance_grad=1e-6, tolerance_change=1e-10, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        weight, bias = parameters[:, :-1], parameters[:, -1]
        loss = l2 * weight.square().sum()
        for features, term in tables:
            repeats = len(features) // len(views.label)
            ce = F.cross_entropy((features @ weight.T.float()).double() + bias, views.label.repeat(repeats), reduction="none")
            loss = loss + term * (ce * views.weight.repeat(repeats)).mean()
        loss.backward()
        return loss

    optimizer.step(objective)
    loss = objective().item()
    fitted = parameters.detach().float()
    return Heads(fitted[None, None, :, :-1].clone(), fitted[None, None, :, -1].clone()), loss


@dataclass(frozen=True)
class Scale:
    """Standardisation of features: (x − mean) / deviation, both (D,)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, original: Tensor) -> "Scale":
        """By the originals' statistics; a constant feature keeps deviation 1."""
        deviation = original.std(0, correction=0)
        return cls(original.mean(0), torch.where(deviation > 0, deviation, 1))

    def views(self, views: Views) -> Views:
        """The views with standardised features."""
        return replace(views, table=(views.table - self.mean).div_(self.deviation))

    def into(self, heads: Heads) -> Heads:
        """Heads on raw features to the same heads on standardised ones."""
        return Heads(heads.weight * self.deviation, heads.bias + heads.weight @ self.mean)

    def out_of(self, heads: Heads) -> Heads:
        """Heads on standardised features to the same heads on raw ones."""
        weight = heads.weight / self.deviation
        return Heads(weight, heads.bias - weight @ self.mean)
