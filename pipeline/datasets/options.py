"""Options of several readers."""

from pydantic import Field

from pipeline.params.block import Block, HeldOutShare, Seed

VAL = "share of a published split that becomes the validation split"


class DrawnValidation(Block):
    """For datasets without a published validation split: a share of another split is drawn with a seed."""

    val: HeldOutShare = Field(default=0.15, description=VAL)
    seed: Seed = Field(default=0, description="seed of all random choices")
