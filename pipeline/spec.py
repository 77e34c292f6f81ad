"""What model.json states: how a classifier is built, and how an image file becomes its input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Normalization:
    """(pixel − mean) / std, for pixels in [0, 1]; red, green, blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# The statistics that torchvision's ImageNet weights were trained with.
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ModelSpec:
    """How to build a classifier, and how an image file becomes its input.

    Attributes:
        classes, attributes: their names, in the order of their codes.
        stored_size, to_stored: from the image file to the stored image (`pipeline.params.dataset`).
        input_size, to_input: from the stored image to the input grid (`pipeline.params.inputs`).
        normalization: from the input grid to the network's input.
    """

    architecture: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    stored_size: int
    to_stored: Literal["squash", "center_crop"]
    input_size: int
    to_input: Literal["center_crop", "resize"]
    normalization: Normalization

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelSpec":
        """The spec from the values that `asdict` and JSON made of it.

        Raises:
            LookupError, TypeError, ValueError: the values are not those of a spec.
        """
        mean, std = (tuple(map(float, values["normalization"][name])) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
            raise ValueError("normalization should have three numbers as mean, and three above 0 as std")
        names = {name: tuple(map(str, values[name])) for name in ("classes", "attributes")}
        return cls(**{**values, **names, "normalization": Normalization(mean, std)})
