"""`sweep`: the grid of α and β."""

from itertools import product
from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.params.block import Block, Positive

Weights = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class GridParams(Block):
    """The values of α and β; every pair of them is tried."""

    block: ClassVar[str] = "sweep"

    alphas: Weights = Field(description="values of retrain.alpha to try")
    betas: Weights = Field(description="values of retrain.beta to try")

    @property
    def settings(self) -> list[tuple[float, float]]:
        """Every pair (α, β); first (0, 0), plain last-layer retraining, whether it is in the lists or not."""
        pairs = list(product(self.alphas, self.betas))
        return list(dict.fromkeys([(0.0, 0.0), *pairs]))


class SweepParams(GridParams):
    """The grid, and how many fits of each pair there are to pick by."""

    seeds: Positive = Field(description="adam: number of heads of each pair, to pick by")
    average: Positive = Field(description="adam: number of fits that are averaged into one such head")
