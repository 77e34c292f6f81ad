"""`examples`: the images that the report shows."""

from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block, Count, Seed


class ExamplesParams(Block):
    """Which images the report shows."""

    block: ClassVar[str] = "examples"

    training: Count = Field(description="number of training images, with map, mask and interventions")
    mistakes: Count = Field(description="number of test images that ERM gets wrong, with two maps each")
    seed: Seed = Field(description="seed of the choice of images")
