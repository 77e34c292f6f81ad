"""Group DRO in the last layer (Sagawa et al. 2020): exponentiated-gradient weights for the training groups.

    q_g ← q_g exp(η ℓ_g) / Σ,    L = Σ_g q_g ℓ_g        ℓ_g the mean loss of group g in the batch

Batches, optimiser and epochs are MaC's, so with one group it is plain last-layer retraining.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.last_layer import mac
from pipeline.last_layer.baselines import Cached, Fitted, NotApplicableError

ETA = 0.01  # step of the group weights, as in the authors' code


class GroupLoss:
    """`heads.Reduce` with a weight for each head's every group; groups that a batch lacks keep theirs.

    Args:
        group: (M,) int64.
        eta: η.
    """

    def __init__(self, group: Tensor, eta: float = ETA) -> None:
        self._member = F.one_hot(group).float()  # (M, G)
        self._eta = eta
        self.weight: Tensor | None = None  # (S, K, G), 1 in sum

    def __call__(self, loss: Tensor, share: Tensor, term_weight: Tensor, rows: Tensor) -> Tensor:
        member = self._member[rows] * (rows >= 0)[..., None]  # (S, B, G)
        count = member.sum(1)
        total = torch.einsum("svkb,vk->skb", loss, term_weight)
        by_group = torch.einsum("skb,sbg->skg", total, member) / count.clamp(min=1)[:, None]
        with torch.no_grad():
            if self.weight is None:
                self.weight = torch.full_like(by_group, 1 / by_group.shape[-1])
            grown = self.weight * torch.exp(self._eta * by_group)
            self.weight = grown / grown.sum(-1, keepdim=True)
        return (self.weight * by_group).sum(-1)


def fit(cached: Cached) -> Fitted:
    """Raises NotApplicableError where the group of a training image is unknown."""
    if cached.group is None:
        raise NotApplicableError("needs the spurious attribute of every training image")
    params = cached.params.model_copy(update={"solver": "adam"})  # full-batch solvers have no batches to weigh
    loss = GroupLoss(cached.group)
    return Fitted(mac.fit(cached.views, cached.validation, cached.erm, params, [0.0], [0.0], cached.seeds, loss).heads, {"eta": ETA})
