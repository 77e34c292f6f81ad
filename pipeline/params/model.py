"""`model`: the network."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from pipeline.params.block import Block
from pipeline.params.train import TrainParams
from pipeline.spec import MOST_NAMES, Normalization


def _auto_or_numbers(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        raise ValueError(
            "should be auto, or {mean: [..], std: [..]} with three numbers each, for pixels in [0, 1]"
        ) from None


class ModelParams(Block):
    """The network, and the weights that it starts from, or its trained weights."""

    block: ClassVar[str] = "model"

    architecture: str = Field(
        description="name of a network of torchvision; or timm/ and the name of one of timm"
    )
    weights: str = Field(
        description="what a training starts from: none, the name of published weights, or a file of weights"
    )
    classifier: str | None = Field(
        description="a file with a trained classifier of this architecture, its head included: then stage "
        "train trains nothing; null: train one"
    )
    classes: Annotated[list[str], Field(min_length=1, max_length=MOST_NAMES)] | None = Field(
        description="the classes that the outputs of model.classifier stand for; null: the dataset's, in "
        "their order"
    )
    normalization: Annotated[Literal["auto"] | Normalization, WrapValidator(_auto_or_numbers)] = Field(
        description="from pixels in [0, 1] to the network's input, {mean: [r, g, b], std: [r, g, b]}; auto: "
        "the network's own"
    )

    @model_validator(mode="after")
    def _classes_are_of_a_classifier(self) -> "ModelParams":
        if self.classes is not None and self.classifier is None:
            raise ValueError(
                "classes names the outputs of model.classifier, which is null; set both, or none"
            )
        return self

    @property
    def own_normalization(self) -> Normalization | None:
        """The numbers; None if they are the network's own."""
        return None if isinstance(self.normalization, str) else self.normalization


def contradiction(model: ModelParams, train: TrainParams) -> str:
    """What cannot be had of a classifier that was trained elsewhere; empty if nothing is asked of it."""
    if model.classifier is None:
        return ""
    if train.hold_out:
        return (
            f"train.hold_out: is {train.hold_out}, but with model.classifier nothing is trained, so no image "
            "can be held out; set it to 0"
        )
    if train.keep_epochs:
        return (
            f"train.keep_epochs: is {train.keep_epochs}, but with model.classifier no epoch is trained; set "
            "it to []"
        )
    return ""
