"""Many linear heads at once, with the axes (S, K): S seeds and K settings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.store import FittedHeads


@dataclass(frozen=True)
class Heads:
    """Linear heads that are being fitted.

    Attributes:
        weight: (S, K, C, D) float32.
        bias: (S, K, C) float32.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, fitted: FittedHeads) -> "Heads":
        """S heads of one setting (K = 1), on the CPU."""
        return cls(torch.from_numpy(fitted.weight)[:, None], torch.from_numpy(fitted.bias)[:, None])

    @classmethod
    def joined(cls, several: Sequence["Heads"], axis: int) -> "Heads":
        """Several heads joined along the seeds (axis 0) or the settings (axis 1)."""
        weight = torch.cat([heads.weight for heads in several], axis)
        return cls(weight, torch.cat([heads.bias for heads in several], axis))

    def fitted(self, setting: int = 0) -> FittedHeads:
        """The S heads of one setting, as NumPy arrays."""
        return FittedHeads(self.weight[:, setting].cpu().numpy(), self.bias[:, setting].cpu().numpy())

    def of_setting(self, setting: int) -> "Heads":
        """The heads of one setting, (S, 1, …)."""
        return Heads(self.weight[:, [setting]], self.bias[:, [setting]])

    def to(self, device: torch.device) -> "Heads":
        """The same heads on another device."""
        return Heads(self.weight.to(device), self.bias.to(device))

    def averaged(self, members: int) -> "Heads":
        """(S · members, K, …) to (S, K, …): the means of successive heads, `members` at a time."""
        weight = self.weight.unflatten(0, (-1, members)).mean(1)
        return Heads(weight, self.bias.unflatten(0, (-1, members)).mean(1))

    def finite(self) -> Tensor:
        """Whether all of a head's values are finite, (S, K) bool."""
        return self.weight.isfinite().flatten(2).all(2) & self.bias.isfinite().all(2)

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) to (S, K, N, C), in one matrix product."""
        flat = F.linear(features, self.weight.flatten(0, 2), self.bias.flatten())
        return flat.view(len(features), *self.bias.shape).permute(1, 2, 0, 3)
