"""`sweep`: the grid of α and β."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.params.block import Block

Weights = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class SweepParams(Block):
    """The values of α and β; every pair of them is tried."""

    block: ClassVar[str] = "sweep"

    alphas: Weights = Field(description="values of retrain.alpha to try")
    betas: Weights = Field(description="values of retrain.beta to try")
