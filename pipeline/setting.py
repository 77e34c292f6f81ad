"""What MaC's heads can be fitted with, by `retrain` or by `sweep`."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

# The upper limit of most numbers, far above what makes sense. So a typing error is told before work starts,
# and no number of the file can use up the memory.
LARGE = 1e6


def or_auto(number: str) -> WrapValidator:
    """For a number or the word auto: one error in place of one for each.

    Args:
        number: which numbers can be, for the message.
    """

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise ValueError(f"should be {number}, or auto") from None

    return WrapValidator(checked)


# A number, which is used as it is, or what stage sweep picks.
NumberOrAuto = Annotated[
    Annotated[float, Field(ge=0, le=LARGE)] | Literal["auto"], or_auto(f"a number from 0 to {LARGE:,.0f}")
]


class Setting(NamedTuple):
    """Weights of the views, and the strength of the L2 penalty where stage sweep picks it."""

    alpha: float
    beta: float
    l2: float | None = None

    def strength(self, l2: NumberOrAuto) -> float:
        """The strength of the penalty: the setting's own, or else the number in retrain.l2."""
        return float(l2 if self.l2 is None else self.l2)
