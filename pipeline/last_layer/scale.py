"""Standardised features, and heads for them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.table import Table
from pipeline.last_layer.views import Views


@dataclass(frozen=True)
class Scale:
    """Standardisation of features: (x − mean) / deviation, both (D,)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, originals: Iterable[Tensor]) -> "Scale":
        """From the statistics of the originals, in blocks (b, D). A constant feature gets the deviation 1.

        Each block's are PyTorch's own; they are joined in float64 (Chan, Golub & LeVeque 1979). So with one
        block, they are those of the whole.
        """
        count, mean, joined, squares = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
        for block in originals:
            rows = len(block)
            # This mean is exact where a feature is constant, so that such a feature has no deviation.
            deviation, exact = (each.double() for each in torch.std_mean(block, 0, correction=0))
            apart, share = exact - joined.to(exact), rows / (count + rows)
            squares = squares.to(exact) + rows * deviation.square() + count * share * apart.square()
            joined = joined.to(exact) + share * apart
            mean = mean.to(exact) + rows * block.mean(0).double()
            count += rows
        found = (squares / count).sqrt().float()
        return cls((mean / count).float(), torch.where(found > 0, found, 1))

    def __call__(self, x: Tensor) -> Tensor:
        """Raw features (n, D) to standardised ones."""
        return (x - self.mean).div_(self.deviation)

    def views(self, views: Views) -> Views:
        """The views with standardised features."""
        return replace(views, table=_Scaled(views.table, self))

    def into(self, heads: Heads) -> Heads:
        """Heads for raw features to heads for standardised features, with the same logits."""
        return Heads(heads.weight * self.deviation, heads.bias + heads.weight @ self.mean)

    def out_of(self, heads: Heads) -> Heads:
        """Heads for standardised features to heads for raw features, with the same logits."""
        weight = heads.weight / self.deviation
        return Heads(weight, heads.bias - weight @ self.mean)


@dataclass(frozen=True)
class _Scaled:
    """A table whose rows are standardised when they are asked for, so that there is no second copy of it."""

    raw: Table
    scale: Scale

    @property
    def width(self) -> int:
        return self.raw.width

    @property
    def device(self) -> torch.device:
        return self.raw.device

    @property
    def index_on(self) -> torch.device:
        return self.raw.index_on

    def __len__(self) -> int:
        return len(self.raw)

    def rows(self, wanted: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        # One memory for all: a new one each time costs as much as the rest.
        memory = torch.empty(0, self.width, device=self.device)
        for x in self.raw.rows(wanted):
            if len(memory) < len(x):
                memory = torch.empty_like(x)
            scaled = torch.sub(x, self.scale.mean, out=memory[: len(x)])
            yield scaled.div_(self.scale.deviation)
