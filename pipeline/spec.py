"""What model.json states: how a classifier is built, and how an image file becomes its input."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import quoted
from pipeline.setting import LONGEST_NAME, Interpolation, Range, Side, ToStored

MOST_NAMES = 100_000  # classes, or attributes

# Pixels are in [0, 1], so what brings them to a mean of 0 and a deviation of 1 is not far from there.
Mean = Annotated[float, Field(ge=-10, le=10)]
Deviation = Annotated[float, Field(ge=1e-4, le=1000)]


def checked_names(values: object, what: str) -> tuple[str, ...]:
    """Names of classes or attributes, that a file says.

    Args:
        what: `classes` or `attributes`, for the message.

    Raises:
        ValueError: they are no list of different names, none of them empty or too long.
    """
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{what}: is no list of names")
    if len(values) > MOST_NAMES:
        raise ValueError(f"{what}: there are over {MOST_NAMES}")
    for name, count in Counter(values).items():
        if not 0 < len(name) <= LONGEST_NAME:
            raise ValueError(
                f"{what}: the name {quoted(name)} is empty, or has over {LONGEST_NAME} characters"
            )
        if count > 1:
            raise ValueError(f"{what}: the name {quoted(name)} is given twice")
    return tuple(values)


@dataclass(frozen=True)
class Normalization:
    """(pixel − mean) / std, for pixels in [0, 1]; red, green, blue."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]


# The statistics that torchvision's ImageNet weights were trained with.
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class DataConfig:
    """What the published weights of a network were made for.

    Attributes:
        input_size: side of the input grid, pixels.
        stored_size: side of the image that the input grid is the middle of, pixels.
        interpolation: how an image is scaled to that side.
        normalization: from the input grid to the network's input.
    """

    input_size: int
    stored_size: int
    interpolation: Interpolation
    normalization: Normalization


@dataclass(frozen=True)
class ModelSpec:
    """How to build a classifier, and how an image file becomes its input.

    Attributes:
        classes, attributes: their names, in the order of their codes.
        stored_size, to_stored: from the image file to the stored image (`pipeline.params.dataset`).
        input_size, to_input: from the stored image to the input grid (`pipeline.params.inputs`).
        normalization: from the input grid to the network's input.
        interpolation: how an image file is scaled to the stored image.
        range: from the image file to 8 bits (`pipeline.params.dataset`).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    architecture: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    stored_size: Side
    to_stored: ToStored
    input_size: Side
    to_input: Literal["center_crop", "resize"]
    normalization: Normalization
    interpolation: Interpolation = "bilinear"
    range: Range = "auto"

    def as_json(self) -> dict[str, Any]:
        """JSON-able values for `from_json`, without those that have their defaults."""
        defaults = {each.name: each.default for each in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @classmethod
    def from_json(cls, values: object) -> "ModelSpec":
        """The spec from the values of `as_json`, after JSON.

        Raises:
            ValueError: the values are not those of a spec.
        """
        try:
            spec = _adapter().validate_json(json.dumps(values, ensure_ascii=False), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(name) for name in first["loc"]) or "spec"
            raise ValueError(f"{key}: {first['msg']}") from None
        if not checked_names(spec.classes, "classes"):
            raise ValueError("classes: is empty")
        checked_names(spec.attributes, "attributes")
        if spec.to_input == "center_crop" and spec.input_size > spec.stored_size:
            raise ValueError(f"input_size: {spec.input_size} is more than stored_size, {spec.stored_size}")
        return spec


@cache
def _adapter() -> TypeAdapter[ModelSpec]:
    return TypeAdapter(ModelSpec)
