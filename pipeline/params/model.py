"""`model`: the network."""

from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block


class ModelParams(Block):
    """The network, and the weights that it starts from."""

    block: ClassVar[str] = "model"

    architecture: str = Field(description="name of a torchvision model")
    weights: str = Field(description="none, the name of torchvision weights, or a .safetensors or .pth file")
