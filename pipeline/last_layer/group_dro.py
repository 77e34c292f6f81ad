"""Group DRO in the last layer (Sagawa et al. 2020).

In each step, training groups with a high loss get more weight:

    q_g ← q_g exp(η ℓ_g) / Σ,    L = Σ_g q_g ℓ_g        ℓ_g is the mean loss of group g in the batch

Batches, optimiser and epochs are MaC's. So with one group, this is plain last-layer retraining.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.last_layer.llr import without_interventions
from pipeline.last_layer.loss import one_hot
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError

ETA = 0.01  # η, as in the authors' code


class GroupWeights:
    """The group weights q of every head, as an `adam.Weigh`. A group without rows in a batch has the loss 0.

    Args:
        group: (M,) int64.
        eta: η.

    Attributes:
        weight: (S, K, G), q, with the sum 1; None before the first batch.
    """

    def __init__(self, group: Tensor, eta: float = ETA) -> None:
        self._group, self._groups = group, int(group.max()) + 1
        self._eta = eta
        self.weight: Tensor | None = None

    def __call__(self, loss: Tensor, share: Tensor, term_weight: Tensor, rows: Tensor) -> Tensor:
        member = one_hot(self._group[rows], self._groups) * (rows >= 0)[..., None]  # (S, B, G)
        # The weight of each row in its group's mean loss.
        mean = member / member.sum(1, keepdim=True).clamp(min=1)
        by_group = torch.einsum("svbk,vk,sbg->skg", loss, term_weight, mean)
        if self.weight is None:
            self.weight = torch.full_like(by_group, 1 / by_group.shape[-1])
        grown = self.weight * torch.exp(self._eta * by_group)
        self.weight = grown / grown.sum(-1, keepdim=True)
        return torch.einsum("skg,sbg,vk->svbk", self.weight, mean, term_weight)


def fit(cached: Cached) -> Fitted:
    """Fit a head for each seed, always by Adam, because the weights change from batch to batch.

    Raises:
        NotApplicableError: the group of a training image is unknown.
    """
    if cached.group is None:
        raise NotApplicableError("needs the spurious attribute of every training image")
    adam = replace(cached, params=cached.params.model_copy(update={"solver": "adam"}))
    fitted = without_interventions(adam, GroupWeights(cached.group))
    return replace(fitted, chosen={"eta": ETA, **fitted.chosen})


METHOD = Method("Group DRO (last layer)", "Sagawa et al. 2020", "training, to train", fit)
