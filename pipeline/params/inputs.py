"""`dataset`, the keys that stage train reads: how a stored image becomes the network's input."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block
from pipeline.setting import Side

ToInput = Literal["center_crop", "resize"]


def misfit(input_size: int, to_input: ToInput, stored_size: int) -> str:
    """What is wrong with an input that is cut out of stored images; empty if it fits."""
    if to_input != "center_crop" or input_size <= stored_size:
        return ""
    return (
        f"dataset.input_size: a centre crop of {input_size} does not fit in stored_size {stored_size}; "
        "lower it, or set dataset.to_input to resize"
    )


class InputParams(Block):
    """How a stored image becomes the network's input."""

    block: ClassVar[str] = "dataset"

    input_size: Side = Field(description="side of the network's input, pixels")
    to_input: ToInput = Field(description="center_crop: cut out the middle; resize: scale the stored image")
