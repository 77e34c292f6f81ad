"""`saliency`: all keys that stage saliency reads."""

from pydantic import Field

from pipeline.params.block import Count
from pipeline.params.maps import MapParams


class SaliencyParams(MapParams):
    """Maps and masks, and the pictures of them in masks.h5."""

    previews: Count = Field(description="number of pictures of cores to store in masks.h5")
