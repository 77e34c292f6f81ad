"""`masktune`: MaskTune."""

from typing import ClassVar

from pydantic import Field

from pipeline.params.block import Block
from pipeline.setting import LARGE


class MaskTuneParams(Block):
    """The settings of MaskTune that differ from `train`."""

    block: ClassVar[str] = "masktune"

    sigmas: float = Field(
        ge=-LARGE,
        le=LARGE,
        description="standard deviations above the map's mean from which a pixel is masked",
    )
    lr: float = Field(gt=0, le=LARGE, description="learning rate of the fine-tuning")
