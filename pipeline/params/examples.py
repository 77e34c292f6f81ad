"""`examples`: the images that the report shows."""

from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block, Seed


class ExamplesParams(Block):
    """Which images the report shows."""

    block: ClassVar[str] = "examples"

    training: int = Field(ge=0, description="number of training images, with map, mask and interventions")
    mistakes: int = Field(ge=0, description="number of test images that ERM gets wrong, with two maps each")
    seed: Seed = Field(description="seed of the choice of images")
