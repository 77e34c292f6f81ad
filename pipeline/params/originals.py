"""`features`: the key that stage originals reads."""

from typing import ClassVar

from pipeline.params.block import Block, Precision


class OriginalsParams(Block):
    """How features are computed."""

    block: ClassVar[str] = "features"

    precision: Precision
