"""`sweep`: the grid of α, β and l2."""

from itertools import product
from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.params.block import Block, Positive
from pipeline.setting import NumberOrAuto, Setting

Values = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class PenaltyParams(Block):
    """The values of l2."""

    block: ClassVar[str] = "sweep"

    l2s: Values = Field(description="values of retrain.l2 to try where it is auto")

    def strengths(self, l2: NumberOrAuto) -> list[float]:
        """The values of l2 that are tried: the number in retrain.l2, or where it is auto, the list."""
        return [l2] if isinstance(l2, float) else list(dict.fromkeys(self.l2s))


class GridParams(PenaltyParams):
    """The values of α, β and l2; all combinations of them are tried."""

    alphas: Values = Field(description="values of retrain.alpha to try")
    betas: Values = Field(description="values of retrain.beta to try")

    def settings(self, l2: NumberOrAuto) -> list[Setting]:
        """Every pair (α, β), and where retrain.l2 is auto, each with every l2.

        First is (0, 0), plain last-layer retraining, whether it is in the lists or not.
        """
        pairs = dict.fromkeys([(0.0, 0.0), *product(self.alphas, self.betas)])
        if l2 != "auto":
            return [Setting(alpha, beta) for alpha, beta in pairs]
        l2s = self.strengths(l2)
        return [Setting(alpha, beta, strength) for (alpha, beta), strength in product(pairs, l2s)]


class SweepParams(GridParams):
    """The grid, and how many fits of each setting there are to pick by."""

    seeds: Positive = Field(description="adam: number of heads of each setting, to pick by")
    average: Positive = Field(description="adam: number of fits that are averaged into one such head")
