"""`saliency`: the keys that change maps."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block, Precision, Seed


class MapParams(Block):
    """How the map of an image is made."""

    block: ClassVar[str] = "saliency"

    method: Literal[
        "auto",
        "xgradcam",
        "hirescam",
        "attention",
        "gradcam",
        "gradcam++",
        "scorecam",
        "layercam",
        "eigencam",
        "random",
        "foreground",
        "external",
    ] = Field(
        description="method of the map. auto: xgradcam where the features are means of rectified maps, else "
        "hirescam; attention: of a vision transformer; random and foreground (the true masks) are controls; "
        "external: the masks are the files of the key external"
    )
    target: Literal["label", "prediction"] = Field(description="the class that the map explains")
    layer: str = Field(description="last: the last activation maps; or the name of a module of the trunk")
    flip: bool = Field(
        description="true: the mean of the image's map and of its mirror image's map; twice the time"
    )
    precision: Precision
    seed: Seed = Field(description="seed of the random control")
