"""`retraining_set`: which training images get a mask, and are used to retrain the last layer."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block, Seed


class RetrainingSetParams(Block):
    """Which training images get a mask, and are used for retraining."""

    block: ClassVar[str] = "retraining_set"

    balance: Literal["none", "class"] = Field(
        description="none: all training images; class: as many of each class as the smallest class has"
    )
    seed: Seed = Field(description="seed of the balanced draw")
