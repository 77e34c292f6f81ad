"""`saliency`: all keys that stage saliency reads."""

from pydantic import Field

from pipeline.params.block import Count
from pipeline.params.maps import MapParams

EXTERNAL = (
    "with method external: the folder of the masks, which are named as their images; or a CSV file with the "
    "columns path and mask"
)
MOST_CONSTANT = "largest share of constant maps, which rank no pixel; with more, the stage fails"


class SaliencyParams(MapParams):
    """Maps and masks, and the pictures of them in masks.h5."""

    external: str = Field(min_length=1, description=EXTERNAL)
    most_constant: float = Field(ge=0, le=1, description=MOST_CONSTANT)
    previews: Count = Field(description="number of pictures of cores to store in masks.h5")
