"""`retrain`: how a last layer is fitted, by MaC and by other methods; all keys but MaC's own, α and β."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block, Positive
from pipeline.setting import LARGE, NumberOrAuto


class FitParams(Block):
    """How a last layer is fitted."""

    block: ClassVar[str] = "retrain"
    of_machine: ClassVar[set[str]] = {"memory"}

    solver: Literal["adam", "lbfgs"] = Field(
        description="adam: the paper's solver; lbfgs: solves the same problem exactly, over all draws"
    )
    seeds: Positive = Field(description="adam: number of heads to fit, for a mean and a spread")
    average: Positive = Field(
        description="adam: number of fits with different seeds that are averaged into one head"
    )
    memory: Literal["auto", "resident", "streamed"] = Field(
        description="resident: the features are read into memory once; streamed: every pass reads them from "
        "features.h5; auto: resident if they fit. The heads are the same"
    )
    init: Literal["erm", "zeros"] = Field(description="the head that a fit starts from")
    standardize: bool = Field(
        description="whether to standardise features by the mean and deviation of the originals"
    )
    class_weights: Literal["none", "balanced"] = Field(
        description="balanced: every class has the same weight, however many images it has"
    )
    l2: NumberOrAuto = Field(
        description="strength of the L2 penalty: l2 · Σ W² is added to the loss; auto: what stage sweep picks"
    )
    epochs: Positive = Field(
        description="adam: passes over the retraining set; epoch e of seed 0 uses draw e mod R"
    )
    lr: float = Field(gt=0, le=LARGE, description="adam: learning rate")
    lr_step: Positive = Field(description="adam: epochs between drops of the learning rate")
    lr_gamma: float = Field(gt=0, le=1, description="adam: factor of each drop")

    @property
    def head_seeds(self) -> list[int]:
        """The seeds of the heads. L-BFGS draws nothing, so it has one head."""
        return list(range(self.seeds)) if self.solver == "adam" else [0]
