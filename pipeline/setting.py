"""What MaC's heads can be fitted with, and limits that parameters and artefacts share."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

# The upper limit of most numbers, far above what makes sense. So a typing error is told before work starts,
# and no number of the file can use up the memory.
LARGE = 1e6
LONGEST_NAME = 200  # characters of the name of a class or an attribute
Side = Annotated[int, Field(gt=0, le=4096)]  # of an image, pixels
ToStored = Literal["squash", "center_crop"]  # how an image becomes a square
Interpolation = Literal["bilinear", "bicubic", "lanczos"]  # how it is scaled; all of them antialias


def _or_auto(numbers: str) -> WrapValidator:
    """One error in place of one for the number and one for the word."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise ValueError(f"should be a number {numbers}, or auto") from None

    return WrapValidator(checked)


# White in grey of more than 8 bits.
Range = Annotated[
    Literal["auto"] | Annotated[float, Field(gt=0, le=2**32)], _or_auto("above 0 and at most 2**32")
]
# A number, which is used as it is, or what stage sweep picks.
NumberOrAuto = Annotated[
    Annotated[float, Field(ge=0, le=LARGE)] | Literal["auto"], _or_auto(f"from 0 to {LARGE:,.0f}")
]


class Setting(NamedTuple):
    """Weights of the views, and the strength of the L2 penalty where stage sweep picks it."""

    alpha: float
    beta: float
    l2: float | None = None

    def strength(self, l2: NumberOrAuto) -> float:
        """The strength of the penalty: the setting's own, or else the number in retrain.l2."""
        return float(l2 if self.l2 is None else self.l2)
