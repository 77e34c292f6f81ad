"""`sweep`: the grid of α, β and l2."""

from itertools import product
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block, Positive
from pipeline.params.selection import Criterion
from pipeline.setting import LARGE, NumberOrAuto, Setting

NotNegative = Annotated[float, Field(ge=0, le=LARGE)]
Values = Annotated[list[NotNegative], Field(min_length=1, max_length=100)]


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
    pick: Literal["auto", "criterion", "diagnosis"] = Field(
        description="what picks α and β. criterion: selection.criterion, the best; diagnosis: the default if "
        "ERM depends on the background, else 0 and 0, or ERM as it is if the assumption fails; auto: the "
        "criterion if it is groups, else the diagnosis"
    )
    default: tuple[NotNegative, NotNegative] = Field(description="α and β that the diagnosis can pick")

    def by_criterion(self, criterion: Criterion) -> bool:
        """Whether this criterion picks α and β; else the diagnosis does."""
        return self.pick == "criterion" or (self.pick == "auto" and criterion == "groups")

    def settings(self, l2: NumberOrAuto, with_default: bool) -> list[Setting]:
        """Every pair (α, β), and where retrain.l2 is auto, each with every l2.

        First is (0, 0), plain last-layer retraining, whether it is in the lists or not; with_default, the
        pair of `default` is there likewise.
        """
        pairs = dict.fromkeys([(0.0, 0.0), *product(self.alphas, self.betas)])
        if with_default:
            pairs[self.default] = None
        if l2 != "auto":
            return [Setting(alpha, beta) for alpha, beta in pairs]
        l2s = self.strengths(l2)
        return [Setting(alpha, beta, strength) for (alpha, beta), strength in product(pairs, l2s)]


class SweepParams(GridParams):
    """The grid, and how many fits of each setting there are to pick by."""

    seeds: Positive = Field(description="adam: number of heads of each setting, to pick by")
    average: Positive = Field(description="adam: number of fits that are averaged into one such head")
