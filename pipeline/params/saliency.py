"""`saliency`: all keys that stage saliency reads."""

from pydantic import Field

from pipeline.params.maps import MapParams

MOST_CONSTANT = "largest share of constant maps, which rank no pixel; with more, the stage fails"


class SaliencyParams(MapParams):
    """Maps, and how many of them may be constant."""

    most_constant: float = Field(ge=0, le=1, description=MOST_CONSTANT)
