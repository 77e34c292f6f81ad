"""`dataset`, the keys that stage prepare reads: which images, and how they are stored."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block
from pipeline.setting import Interpolation, Range, Side, ToStored

TO_STORED = (
    "squash: scale both sides to stored_size; center_crop: take the largest square in the middle, then scale"
)


class DatasetParams(Block):
    """Which images to read, and at which size to store them."""

    block: ClassVar[str] = "dataset"

    name: str = Field(description="the reader of the dataset's files")
    root: str = Field(min_length=1, description="folder of the dataset")
    options: dict[str, Any] = Field(description="options of the reader, see below; {} for none")
    stored_size: Side = Field(description="side of the stored images, pixels")
    to_stored: ToStored = Field(description=TO_STORED)
    interpolation: Interpolation = Field(description="how the stored images are scaled")
    range: Range = Field(
        description="the value that becomes white in grey images of more than 8 bits; auto: what the file "
        "declares, else 65535"
    )
    storage: Literal["pixels", "encoded"] = Field(
        description="how images.h5 has the images; pixels: as they are; encoded: as lossless WebP, in about "
        "half the space, decoded to the same pixels whenever they are read"
    )
    on_error: Literal["fail", "skip"] = Field(
        description="what to do if images cannot be read: stop, or continue without them"
    )
    on_duplicates: Literal["fail", "warn"] = Field(
        description="what to do if an image is in two splits: stop, or only say so"
    )
