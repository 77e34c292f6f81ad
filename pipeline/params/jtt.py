"""`jtt`: Just Train Twice."""

from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block, Positive
from pipeline.setting import LARGE


class JttParams(Block):
    """The settings of JTT that differ from `train`."""

    block: ClassVar[str] = "jtt"

    first_epochs: Positive = Field(description="T: epochs of the first training, whose errors are collected")
    upweight: Positive = Field(description="λ: how many times an image of the error set counts")
    epochs: Positive = Field(description="epochs of the second training")
    lr: float = Field(gt=0, le=LARGE, description="learning rate of both trainings")
    weight_decay: float = Field(ge=0, le=LARGE, description="weight decay of both trainings")
