"""`retraining_set`: which training images get a mask, and are used to retrain the last layer."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block, Seed


class RetrainingSetParams(Block):
    """Which training images get a mask, and are used for retraining."""

    block: ClassVar[str] = "retraining_set"

    balance: Literal["none", "class"] = Field(
        description="none: all training images; class: the same number of each class, that of the smallest"
    )
    seed: Seed = Field(description="seed of the choice of images")
