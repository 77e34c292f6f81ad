"""`features`: the cached views."""

from typing import Literal

from pydantic import Field

from pipeline.params.block import Positive, Seed
from pipeline.params.originals import OriginalsParams
from pipeline.setting import LARGE


class FeaturesParams(OriginalsParams):
    """How many draws are cached, and how they are made. Their precision is that of the originals."""

    draws: Positive = Field(description="R: number of draws; in each draw, every image gets a partner")
    validation_draws: Positive = Field(
        description="draws over the validation images, for the diagnosis; training does not see them"
    )
    batch_size: int = Field(
        ge=2,
        le=LARGE,
        description="images in a batch of retraining; they share a fill, and are partners of each other",
    )
    low_loss: float = Field(
        gt=0,
        le=1,
        description="only the images whose ERM loss is at or below this quantile are masked and combined; "
        "1: all of them",
    )
    storage: Literal["float32", "float16"] = Field(
        description="number format of the features in features.h5; float16 takes half the space"
    )
    seed: Seed = Field(description="seed of the draws")
