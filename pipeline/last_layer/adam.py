"""Fits many heads at once by Adam on minibatches, as in the paper (equations 3 to 6).

    L = CE(φ) + α CE(φ_masked) + β CE(φ_combined) + l2 Σ W²     for the head's W and b only

Heads have the axes (S, K): S seeds, which differ in the order of batches and draws, and K settings of
(α, β, l2).
The axes of a batch are S seeds, V terms of the loss (original, masked, combined), B rows, C classes and K
settings.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy, gradient_, one_hot
from pipeline.last_layer.views import Views
from pipeline.params.fit import FitParams
from pipeline.setting import Setting

STEPS = 256  # how many steps' rows are found at a time


class NotFiniteError(ArithmeticError):
    """The loss of a head is NaN or infinite. The message names epoch and batch (from 1) and seed."""

    def __init__(self, loss: float, epoch: int, batch: int, seed: int) -> None:
        super().__init__(f"the loss is {loss} in epoch {epoch}, batch {batch}, seed {seed}")


class Weigh(Protocol):
    """How much each row of a batch counts in the loss of each head."""

    def __call__(self, loss: Tensor, share: Tensor, term_weight: Tensor, rows: Tensor) -> Tensor:
        """The weights (S, V, B, K). A head's loss is the sum of its rows' losses times these weights.

        Args:
            loss: (S, V, B, K), the cross-entropy of each row in each term.
            share: (S, V, B), the weight of a row in a term's mean over the batch; 0 if the batch has no row
                there.
            term_weight: (V, K), 1, α or β.
            rows: (S, B), index into the retraining set; −1 if the batch has no row there.
        """
        ...


def mean_of_batch(loss: Tensor, share: Tensor, term_weight: Tensor, rows: Tensor) -> Tensor:
    """The weights of paper equation 6: a weighted sum of the terms; each term is a mean over the batch."""
    return share[..., None] * term_weight[:, None]


def batch_order(seed: int, epoch: int, batches: int) -> NDArray[np.int64]:
    """The order in which `seed` visits the batches of its draw in `epoch` (from 0)."""
    return np.random.default_rng([seed, epoch]).permutation(batches)


def draw_of(seed: int, epoch: int, draws: int) -> int:
    """The draw that `seed` uses in `epoch` (from 0).

    Seed 0 uses draw epoch mod R. Each further seed starts one draw later.
    """
    return (epoch + seed) % draws


@torch.no_grad()
def fit_adam(
    views: Views,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    start: Heads,
    params: FitParams,
    after_epoch: Callable[[int, Heads, Tensor], None],
    weigh: Weigh = mean_of_batch,
) -> None:
    """Fit S · K heads at once, one for each seed and setting.

    One pass over the features per epoch serves all heads. Epoch e of seed s visits the batches of draw
    `draw_of(s, e)` in the order `batch_order(s, e)`. Each head is the same as if it were fitted alone.

    The gradient is written out: ∂L/∂W = (w (p − onehot y))ᵀ x, for the views x (V·B, D) of a batch, their
    probabilities p, and the weights w of their losses.

    Args:
        start: the heads to start from, (1 or S, 1 or K, …).
        params: epochs, learning rate with its steps, and the l2 of settings that have none; its seeds are
            not read.
        after_epoch: called with the epoch (from 0), the heads, and the mean training loss (S, K).
        weigh: how much each row of a batch counts.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
    """
    count, classes = len(seeds), start.bias.shape[-1]
    device = views.table.device
    terms, term_weight = _terms(settings, device)
    by_term = (views.weight, views.intervention_weight, views.intervention_weight)
    row_weight = torch.stack([by_term[term] for term in terms])  # (V, M)
    batches = _Batches(views, seeds, terms)
    heads = _Optimised(start, count, len(settings))
    l2s = [each.strength(params.l2) for each in settings]
    penalty = torch.tensor(l2s, dtype=torch.float32, device=device) if any(l2s) else None  # (K,)
    for epoch in range(params.epochs):
        lr = params.lr * params.lr_gamma ** (epoch // params.lr_step)
        losses = torch.empty(len(batches), count, len(settings), device=device)
        steps = zip(batches.rows(epoch), views.table.rows(batches.in_table(epoch)), strict=True)
        for step, (rows, flat) in enumerate(steps):  # (S, B), (S·V·B, D)
            x = flat.view(count, -1, views.table.width)
            present = rows >= 0
            share = row_weight[:, rows].transpose(0, 1)  # (S, V, B)
            share = share * present[:, None] / present.sum(1)[:, None, None]
            logits = heads.logits(x).view(count, len(terms), -1, classes, len(settings))  # (S, V, B, C, K)
            y = one_hot(views.label[rows], classes)[:, None, :, :, None]
            loss, log_p = cross_entropy(logits, y, axis=3)
            weight = weigh(loss, share, term_weight, rows)
            by_logits = gradient_(log_p, y, weight[:, :, :, None])
            torch.sum(loss * weight, (1, 2), out=losses[step])
            if penalty is not None:
                losses[step] += penalty * heads.squares()
            heads.step(x, by_logits.view(count, -1, classes * len(settings)), penalty, lr)
        _require_finite(losses, epoch, seeds)
        after_epoch(epoch, heads.heads(), losses.mean(0))


def _terms(settings: Sequence[Setting], on: torch.device) -> tuple[list[int], Tensor]:
    """The loss terms of (original, masked, combined) that have a weight, and their weights (V, K)."""
    alphas, betas = [each.alpha for each in settings], [each.beta for each in settings]
    weights = torch.tensor([[1.0] * len(settings), alphas, betas], dtype=torch.float32, device=on)
    used = [term for term in range(3) if bool((weights[term] != 0).any())]
    return used, weights[used]


def _require_finite(losses: Tensor, epoch: int, seeds: Sequence[int]) -> None:
    """Refuse losses (batches, S, K) if one is NaN or infinite."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step, s, k = bad[0].tolist()
        raise NotFiniteError(losses[step, s, k].item(), epoch + 1, step + 1, seeds[s])


class _Batches:
    """Which rows each seed sees in each step of an epoch, and where their views are.

    Args:
        terms: the loss terms that are used, of (original, masked, combined) = (0, 1, 2).
    """

    def __init__(self, views: Views, seeds: Sequence[int], terms: list[int]) -> None:
        self._seeds, self._terms, self._order = seeds, terms, views.order
        self._index_on = views.table.index_on
        within = torch.arange(int(views.sizes.max()))
        self._present = within < views.sizes[:, None]  # (batches, B)
        first = views.sizes.cumsum(0) - views.sizes
        # After the end of a shorter batch, its last row is repeated; it has no weight there.
        self._place = first[:, None] + within.minimum(views.sizes[:, None] - 1)

    def __len__(self) -> int:
        return len(self._place)

    def rows(self, epoch: int) -> Iterator[Tensor]:
        """The rows of each step of an epoch (from 0), (S, B); −1 after the end of a shorter batch."""
        present = self._present.to(self._order.device)
        for visited, _, _, rows in self._visited(epoch, self._order.device):
            yield from rows.where(present[visited], -1).unbind(1)

    def in_table(self, epoch: int) -> Iterator[Tensor]:
        """The numbers in the table of the views of each step of an epoch (from 0), (S · V · B,)."""
        draws, count = self._order.shape
        for _, draw, place, rows in self._visited(epoch, self._index_on):
            masked = count * (1 + draw[:, None, None]) + place
            views = torch.stack([rows, masked, masked + count * draws], 2)[:, :, self._terms]  # (S, n, V, B)
            yield from views.transpose(0, 1).flatten(1).unbind()

    def _visited(self, epoch: int, on: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For n steps at a time: batches (S, n), draws (S,), places in these and rows, (S, n, B) each."""
        order, places = self._order.to(on), self._place.to(on)
        draw = torch.tensor([draw_of(seed, epoch, len(order)) for seed in self._seeds], device=on)
        visited = np.stack([batch_order(seed, epoch, len(places)) for seed in self._seeds])
        for some in torch.from_numpy(visited).to(on).split(STEPS, 1):
            place = places[some]
            yield some, draw, place, order[draw[:, None, None], place]


class _Optimised:
    """S · K heads, their gradients, and the state of Adam.

    Their axes are (S, C, K, D). Classes come before settings, because a softmax over an inner axis of two is
    slow.
    """

    def __init__(self, start: Heads, seeds: int, settings: int) -> None:
        classes, width = start.weight.shape[-2:]
        shape = (seeds, classes, settings)
        self._weight = _parameter(start.weight.transpose(1, 2).expand(*shape, width))
        self._bias = _parameter(start.bias.transpose(1, 2).expand(shape))
        self._both = [self._weight, self._bias]
        self._gradients = [torch.zeros_like(part) for part in self._both]
        self._averages = [torch.zeros_like(part) for part in self._both]
        self._squares = [torch.zeros_like(part) for part in self._both]
        self._steps = [torch.zeros((), device=start.weight.device) for _ in self._both]
        # The same memory, flat, for products over all heads of a seed: (S, C·K, D), for biases (S, C·K, 1).
        flat = (seeds, classes * settings, -1)
        self._flat_weight, self._flat_bias = self._weight.view(flat), self._bias.view(flat)
        self._weight_gradient, self._bias_gradient = (part.view(flat) for part in self._gradients)

    def logits(self, x: Tensor) -> Tensor:
        """(S, V·B, D) to (S, V·B, C·K)."""
        return torch.baddbmm(self._flat_bias.mT, x, self._flat_weight.mT)

    def squares(self) -> Tensor:
        """Σ W² of each head, (S, K)."""
        return self._weight.square().sum((1, 3))

    def step(self, x: Tensor, by_logits: Tensor, penalty: Tensor | None, lr: float) -> None:
        """Take one step of Adam.

        Args:
            x: (S, V·B, D), the features of a batch.
            by_logits: (S, V·B, C·K), the gradient of the loss with respect to the logits.
            penalty: (K,), the strengths of the penalties; None if all are 0.
            lr: learning rate.
        """
        torch.bmm(by_logits.mT, x, out=self._weight_gradient)
        torch.sum(by_logits, 1, out=self._bias_gradient[..., 0])
        if penalty is not None:
            self._gradients[0].addcmul_(self._weight, 2 * penalty[:, None])
        # Not the class torch.optim.Adam: it imports all of TorchDynamo, which takes as long as fitting five
        # heads.
        adam(
            self._both,
            self._gradients,
            self._averages,
            self._squares,
            [],
            self._steps,
            fused=True,
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
        )

    def heads(self) -> Heads:
        """The heads. They share memory with this object, so the next step changes them."""
        return Heads(self._weight.detach().transpose(1, 2), self._bias.detach().transpose(1, 2))


def _parameter(start: Tensor) -> Tensor:
    """A copy that owns its memory, in the order of the axes."""
    return start.clone(memory_format=torch.contiguous_format)
