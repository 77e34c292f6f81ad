"""`baselines`: other methods of the last layer, on the same features."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block

# One name for each entry of `pipeline.last_layer.methods.METHODS`.
MethodName = Literal[
    "erm",
    "llr",
    "cb_llr",
    "llr_groups",
    "class_scaling",
    "evals",
    "afr",
    "self",
    "dfr",
    "dfr_l2",
    "dfr_train",
    "group_dro",
]


class BaselinesParams(Block):
    """Which other methods are fitted."""

    block: ClassVar[str] = "baselines"

    methods: Annotated[list[MethodName], Field(min_length=1, description="the methods to fit")]
