"""The base of all parameter models, and the types that several of them use."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline.setting import LARGE

PRECISION = "number format of the network; auto: bfloat16 if the hardware computes in it, else float32"
Precision = Annotated[Literal["auto", "float32", "bfloat16"], Field(description=PRECISION)]
Positive = Annotated[int, Field(gt=0, le=LARGE)]
Count = Annotated[int, Field(ge=0, le=LARGE)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # as PyTorch takes them
HeldOutShare = Annotated[float, Field(gt=0, lt=0.5)]


class Block(BaseModel):
    """Keys of one block of params.yaml. All of them must be there, and no others.

    Attributes:
        block: name of the block, such as `train`.
        of_machine: its keys that change nothing of what is made; no artefact states them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=4096)

    block: ClassVar[str]
    of_machine: ClassVar[set[str]] = set()

    @property
    def divisible(self) -> bool:
        """Whether workers can share the work of a stage that has these parameters."""
        return True

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false for a number, which would be 1 and 0."""
        is_truth_value = cls.model_fields[info.field_name or ""].annotation is bool
        listed = value if isinstance(value, list) else [value]
        if not is_truth_value and any(isinstance(each, bool) for each in listed):
            raise ValueError("should not be true or false")
        return value


class NoOptions(Block):
    """`dataset.options` of a reader that has none."""
