"""Standardised features, and heads for them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.views import Views


@dataclass(frozen=True)
class Scale:
    """Standardisation of features: (x − mean) / deviation, both (D,)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, original: Tensor) -> "Scale":
        """From the statistics of the originals (M, D). A constant feature gets the deviation 1."""
        deviation = original.std(0, correction=0)
        return cls(original.mean(0), torch.where(deviation > 0, deviation, 1))

    def views(self, views: Views) -> Views:
        """The views with standardised features."""
        return replace(views, table=(views.table - self.mean).div_(self.deviation))

    def into(self, heads: Heads) -> Heads:
        """Heads for raw features to heads for standardised features, with the same logits."""
        return Heads(heads.weight * self.deviation, heads.bias + heads.weight @ self.mean)

    def out_of(self, heads: Heads) -> Heads:
        """Heads for standardised features to heads for raw features, with the same logits."""
        weight = heads.weight / self.deviation
        return Heads(weight, heads.bias - weight @ self.mean)
