"""`saliency`: all keys that stage masks reads."""

from pydantic import Field

from pipeline.params.block import Count
from pipeline.params.cores import CoreParams

EXTERNAL = (
    "with method external: the folder of the masks, which are named as their images; or a CSV file with the "
    "columns path and mask"
)


class MasksParams(CoreParams):
    """Masks, and the pictures of them in masks.h5."""

    external: str = Field(min_length=1, description=EXTERNAL)
    previews: Count = Field(description="number of pictures of cores to store in masks.h5")
