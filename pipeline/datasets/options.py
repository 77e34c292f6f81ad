"""Options that several readers have."""

from pydantic import Field

from pipeline.params.block import Block, HeldOutShare, Seed

VAL = "share of a published split that becomes the validation split"


class DrawnValidation(Block):
    """Where no validation split is published: a share of another split, drawn with a seed."""

    val: HeldOutShare = Field(default=0.15, description=VAL)
    seed: Seed = Field(default=0, description="seed of what is drawn")
