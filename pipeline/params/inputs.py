"""`dataset`, the keys that stage train reads: how a stored image becomes the network's input."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block, Positive

ToInput = Literal["center_crop", "resize"]


class InputParams(Block):
    """How a stored image becomes the network's input."""

    block: ClassVar[str] = "dataset"

    input_size: Positive = Field(description="side of the network's input, pixels")
    to_input: ToInput = Field(description="center_crop: cut out the middle; resize: scale the stored image")
