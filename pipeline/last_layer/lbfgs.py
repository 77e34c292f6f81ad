"""Fits one head exactly, by L-BFGS on all views at once. The paper's loss is convex in the head."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.loss import cross_entropy
from pipeline.last_layer.views import Views

MAX_ITERATIONS = 500


class _Term:
    """One term of the loss.

    Args:
        features: (n, D) float32, the M rows once, or once for each draw.
        views: the rows' labels and weights.
        weight: 1, α or β.
        classes: C.
    """

    def __init__(self, features: Tensor, views: Views, weight: float, classes: int) -> None:
        repeats = len(features) // len(views.label)
        self._features = features
        self._onehot = F.one_hot(views.label, classes).double().repeat(repeats, 1)
        self._row_weight = views.weight.repeat(repeats)
        self._weight = weight

    def __call__(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The mean loss over the rows, times the term's weight, for a float64 head, (C, D) and (C,).

        Features are multiplied in float32. Losses are in float64, so that the line search sees small steps.
        """
        logits = (self._features @ weight.T.float()).double() + bias
        loss, _ = cross_entropy(logits, self._onehot, axis=1)
        return self._weight * (loss * self._row_weight).mean()


def fit_lbfgs(views: Views, alpha: float, beta: float, classes: int, l2: float) -> tuple[Heads, float]:
    """Solve for one setting of (α, β, l2). The masked and combined terms are means over all draws.

    Nothing is random.

    Returns:
        The head, (1, 1, …), and the loss at the minimum.
    """
    device, width = views.table.device, views.table.shape[1]
    parameters = torch.zeros(classes, width + 1, dtype=torch.float64, device=device, requires_grad=True)
    terms = [_Term(views.original, views, 1.0, classes)]
    if alpha:
        terms.append(_Term(views.interventions[0].flatten(0, 1), views, alpha, classes))
    if beta:
        terms.append(_Term(views.interventions[1].flatten(0, 1), views, beta, classes))
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        weight, bias = parameters[:, :-1], parameters[:, -1]
        loss = l2 * weight.square().sum()
        for term in terms:
            loss = loss + term(weight, bias)
        loss.backward()
        return loss

    optimizer.step(objective)
    loss = objective().item()
    fitted = parameters.detach().float()[None, None]
    return Heads(fitted[..., :-1].clone(), fitted[..., -1].clone()), loss
