"""Fits one head exactly, by L-BFGS on all views. The paper's loss is convex in the head.

Loss and gradient are sums over blocks of views.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy, gradient_
from pipeline.last_layer.table import blocks
from pipeline.last_layer.views import Views

MAX_ITERATIONS = 500
BLOCK = 4 << 20  # bytes of a block: the caches hold it until the gradient is computed


class _Objective:
    """The loss of a head and its gradient. The masked and combined terms are means over all draws.

    Args:
        alpha, beta: weights of the masked and the combined term.
        classes: C.
        l2: strength of the penalty.
    """

    def __init__(self, views: Views, alpha: float, beta: float, classes: int, l2: float) -> None:
        draws, count = views.order.shape
        self._table, self._l2 = views.table, l2
        self._onehot = F.one_hot(views.label, classes).double()
        # Of each term with a weight: where its views begin in the table, their rows, and what each counts.
        each = [(0, torch.arange(count, device=views.label.device), views.weight.double() / count)]
        for begin, weight in ((count, alpha), (count + draws * count, beta)):
            if weight:
                counts = views.intervention_weight.double() * weight / (draws * count)
                each.append((begin, views.order.flatten(), counts))
        self._terms = each

    def __call__(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient (C, D + 1), of a float64 head, weight and bias (C, D + 1).

        Features are multiplied in float32. Losses and sums are in float64, so that the line search sees small
        steps.
        """
        weight, bias, in_float32 = head[:, :-1], head[:, -1], head[:, :-1].float()
        loss = self._l2 * weight.square().sum()
        gradient = F.pad(2 * self._l2 * weight, (0, 1))
        for begin, of_places, counts in self._terms:
            for block, x in blocks(self._table, begin, begin + len(of_places), BLOCK):
                rows = of_places[block.start - begin : block.stop - begin]
                onehot, each = self._onehot[rows], counts[rows]
                losses, log_p = cross_entropy((x @ in_float32.T).double() + bias, onehot, axis=1)
                by_logits = gradient_(log_p, onehot, each[:, None])
                loss = loss + losses @ each
                gradient[:, :-1] += by_logits.float().T @ x
                gradient[:, -1] += by_logits.sum(0)
        return loss, gradient


@torch.no_grad()
def fit_lbfgs(views: Views, alpha: float, beta: float, classes: int, l2: float) -> tuple[Heads, float]:
    """Solve for one setting of (α, β, l2). The masked and combined terms are means over all draws.

    Nothing is random.

    Returns:
        The head, (1, 1, …), and the loss at the minimum.
    """
    device, width = views.table.device, views.table.width
    parameters = torch.zeros(classes, width + 1, dtype=torch.float64, device=device, requires_grad=True)
    objective = _Objective(views, alpha, beta, classes, l2)
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        loss, parameters.grad = objective(parameters.detach())
        return loss

    optimizer.step(closure)
    loss, _ = objective(parameters.detach())
    fitted = parameters.detach().float()[None, None]
    return Heads(fitted[..., :-1].clone(), fitted[..., -1].clone()), loss.item()
