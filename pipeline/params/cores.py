"""`saliency`: the keys that change masks, and no maps."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from pipeline.params.block import Block


def _as_written(value: object, info: ValidationInfo) -> object:
    """Refuse 1.0 in params.yaml: 1 is one pixel, and 0.999 is a share. Elsewhere all numbers are floats."""
    if info.context and isinstance(value, float) and value == 1:
        raise ValueError("is one pixel or all of them; write 1, or a share below 1 such as 0.99")
    return value


def _top_k(value: float) -> float:
    if not (0 < value < 1 or (value >= 1 and value == int(value))):
        raise ValueError("should be a whole number of pixels, or a fraction in (0, 1)")
    return value


TopK = Annotated[float, BeforeValidator(_as_written), AfterValidator(_top_k)]


class CoreParams(Block):
    """Which pixels of a map are the core."""

    block: ClassVar[str] = "saliency"

    size: Literal["top_k", "knee"] = Field(
        description="what sets K. top_k: the key top_k; knee: each image has its own, at the knee of ERM's "
        "loss on the K highest pixels alone (DaC), and the key is not read"
    )
    top_k: TopK = Field(
        description="K: number of pixels in the mask; or, in (0, 1), their share of the image; 1 is one "
        "pixel, and 1.0 is refused"
    )
    side: Literal["core", "rest", "auto"] = Field(
        description="core: the mask is the K highest pixels; rest: it is all the others, for data where the "
        "masks show that ERM looks at the background; auto: for each class what ERM recognises it by on the "
        "validation images; true masks are taken as they are"
    )
