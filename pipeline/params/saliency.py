"""`saliency`: all keys that stage saliency reads."""

from pydantic import Field

from pipeline.params.block import Count
from pipeline.params.maps import MapParams

EXTERNAL = (
    "with method external: the folder of the masks, which are named as their images; or a CSV file with the "
    "columns path and mask"
)
MOST_BLANK = "largest share of blank maps (constant, or nowhere positive); with more, the stage fails"


class SaliencyParams(MapParams):
    """Maps and masks, and the pictures of them in masks.h5."""

    external: str = Field(min_length=1, description=EXTERNAL)
    most_blank: float = Field(ge=0, le=1, description=MOST_BLANK)
    previews: Count = Field(description="number of pictures of cores to store in masks.h5")
