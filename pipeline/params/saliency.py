"""`saliency`: all keys that stage saliency reads."""

from pydantic import Field

from pipeline.params.maps import MapParams


class SaliencyParams(MapParams):
    """Maps and masks, and the pictures of them in masks.h5."""

    previews: int = Field(ge=0, description="how many pictures of masked images to store in masks.h5")
