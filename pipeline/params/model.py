"""`model`: the network."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block


class ModelParams(Block):
    """The network, and the weights that it starts from."""

    block: ClassVar[str] = "model"

    architecture: str = Field(description="name of a torchvision model")
    weights: str = Field(description="none, the name of torchvision weights, or a .safetensors or .pth file")


def weights_file(weights: str) -> Path | None:
    """The file that `model.weights` names: it has a suffix or a folder. None: the weights have a name."""
    path = Path(weights)
    return path if path.suffix or len(path.parts) > 1 else None
