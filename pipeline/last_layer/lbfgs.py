"""Fits one head exactly, by L-BFGS on all views. The paper's loss is convex in the head.

Loss and gradient are partial sums, over parts of the views, that are added in a fixed order. Others may
compute them; the whole is the same.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy, gradient_, one_hot
from pipeline.last_layer.table import blocks
from pipeline.last_layer.views import Views

MAX_ITERATIONS = 500
BLOCK = 4 << 20  # bytes of a block: the caches hold it until the gradient is computed
PART = 1 << 15  # views

Point = tuple[float, float, NDArray[np.float64]]  # α, β and a head: weight and bias (C, D + 1)
PartialSums = tuple[float, NDArray[np.float64]]  # of the loss, and of its gradient (C, D + 1)
Elsewhere = Callable[[Sequence[range], Point], list[PartialSums]]  # of each part, at a point


class Sums:
    """Partial sums of a head's loss, over some views. Masked and combined terms are means over all draws.

    Args:
        alpha, beta: weights of the masked and the combined term.
        classes: C.

    Attributes:
        parts: the numbers of the views in the table; only those of terms that have a weight.
    """

    def __init__(self, views: Views, alpha: float, beta: float, classes: int) -> None:
        draws, count = views.order.shape
        self._table = views.table
        self._label, self._classes = views.label, classes
        # Of each term with a weight: where its views begin in the table, their rows, what each row counts.
        in_order = torch.arange(count, device=views.label.device)
        self._terms = [(0, in_order, views.weight.double() / count)]
        for begin, weight in ((count, alpha), (count + draws * count, beta)):
            if weight:
                counts = views.intervention_weight.double() * weight / (draws * count)
                self._terms.append((begin, views.order.flatten(), counts))
        self.parts: list[range] = []
        for begin, rows, _ in self._terms:
            whole = range(begin, begin + len(rows))
            self.parts += [whole[start : start + PART] for start in range(0, len(whole), PART)]

    def __call__(self, part: range, head: NDArray[np.float64]) -> PartialSums:
        """The sums over a part.

        Features are multiplied in float32. Losses and sums are in float64, so that the line search sees small
        steps.

        Args:
            head: weight and bias, (C, D + 1).
        """
        begin, of_places, counts = [term for term in self._terms if term[0] <= part.start][-1]
        whole = torch.from_numpy(head).to(self._table.device)
        weight, bias = whole[:, :-1].float(), whole[:, -1]
        loss, gradient = whole.new_zeros(()), torch.zeros_like(whole)
        for block, x in blocks(self._table, part.start, part.stop, BLOCK):
            rows = of_places[block.start - begin : block.stop - begin]
            onehot, each = one_hot(self._label[rows], self._classes, torch.float64), counts[rows]
            losses, log_p = cross_entropy((x @ weight.T).double() + bias, onehot, axis=1)
            by_logits = gradient_(log_p, onehot, each[:, None])
            loss += losses @ each
            gradient[:, :-1] += by_logits.float().T @ x
            gradient[:, -1] += by_logits.sum(0)
        return loss.item(), gradient.cpu().numpy()


def partial_sums(views: Views, classes: int) -> Callable[[range, Point], PartialSums]:
    """The sums over a part at a point, for who computes them elsewhere."""
    sums = lru_cache(1)(lambda alpha, beta: Sums(views, alpha, beta, classes))

    def over(part: range, point: Point) -> PartialSums:
        alpha, beta, head = point
        with torch.no_grad():
            return sums(alpha, beta)(part, head)

    return over


@torch.no_grad()
def fit_lbfgs(
    views: Views, alpha: float, beta: float, classes: int, l2: float, elsewhere: Elsewhere | None = None
) -> tuple[Heads, float]:
    """Solve for one setting of (α, β, l2). The masked and combined terms are means over all draws.

    Nothing is random.

    Args:
        elsewhere: computes the partial sums elsewhere, on the same views; None: here.

    Returns:
        The head, (1, 1, …), and the loss at the minimum.
    """
    sums = Sums(views, alpha, beta, classes)

    def objective(head: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient (C, D + 1), of a head on the CPU."""
        there = head.numpy()
        if elsewhere:
            partial = elsewhere(sums.parts, (alpha, beta, there))
        else:
            partial = [sums(part, there) for part in sums.parts]
        weight = head[:, :-1]
        loss, gradient = l2 * weight.square().sum(), F.pad(2 * l2 * weight, (0, 1))
        for by_part, by_head in partial:
            loss += by_part
            gradient += torch.from_numpy(by_head)
        return loss, gradient

    parameters = torch.zeros(classes, views.table.width + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        with torch.no_grad():
            loss, parameters.grad = objective(parameters.detach())
        return loss

    optimizer.step(closure)
    loss, _ = objective(parameters.detach())
    fitted = parameters.detach().float().to(views.table.device)[None, None]
    return Heads(fitted[..., :-1].clone(), fitted[..., -1].clone()), loss.item()
