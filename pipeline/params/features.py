"""`features`: the cached views."""

from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block, Positive, Precision, Seed


class FeaturesParams(Block):
    """How many draws are cached, and how they are made."""

    block: ClassVar[str] = "features"

    draws: Positive = Field(description="R: how many times every image is given a partner")
    batch_size: int = Field(
        ge=2, description="images that share a fill and are each other's partners: the batch of retraining"
    )
    precision: Precision
    seed: Seed = Field(description="seed of the draws")
