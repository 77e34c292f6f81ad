"""`train`: ERM by SGD."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.params.block import Block, Positive, Precision, Seed
from pipeline.setting import LARGE


def _crop_scale(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError("should be two rising fractions of the area, 0 < low <= high <= 1")
    return value


class TrainParams(Block):
    """How the ERM classifier is trained."""

    block: ClassVar[str] = "train"

    epochs: Positive = Field(description="passes over the training images")
    batch_size: int = Field(ge=2, le=LARGE, description="images in a training step")
    lr: float = Field(gt=0, le=LARGE, description="highest learning rate of the schedule")
    momentum: float = Field(ge=0, lt=1, description="momentum of the optimiser, SGD")
    weight_decay: float = Field(ge=0, le=LARGE, description="weight decay of the optimiser, SGD")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(description="how the learning rate changes")
    crop_scale: Annotated[tuple[float, float], AfterValidator(_crop_scale)] = Field(
        description="smallest and largest area of the random crop, as shares of the image"
    )
    flip: bool = Field(description="whether to mirror images at random")
    precision: Precision
    select: Literal["last", "best"] = Field(
        description="which epoch is the ERM model; best: the one that selection.criterion prefers"
    )
    hold_out: float = Field(
        ge=0,
        lt=1,
        description="share of each class's training images that ERM does not see (0.2 for AFR, EVaLS, SELF)",
    )
    keep_epochs: list[Positive] = Field(
        description="epochs, from 1, whose predictions on all training images are kept: SELF needs some"
    )
    seed: Seed = Field(description="seed of the new head, the order of the images and the augmentation")

    @model_validator(mode="after")
    def _kept_epochs_are_trained(self) -> "TrainParams":
        kept = self.keep_epochs
        if kept != sorted(set(kept)) or any(epoch > self.epochs for epoch in kept):
            raise ValueError(
                f"keep_epochs is {kept}; it should be rising epochs of the {self.epochs} that are trained"
            )
        return self
