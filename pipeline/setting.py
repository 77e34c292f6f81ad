"""What MaC's heads can be fitted with, by `retrain` or by `sweep`."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

# The upper limit of most numbers, far above what makes sense. So a typing error is told before work starts,
# and no number of the file can use up the memory.
LARGE = 1e6


def _number_or_auto(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One error in place of one for the number and one for the word."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(f"should be a number from 0 to {LARGE:,.0f}, or auto") from None


# A number, which is used as it is, or what stage sweep picks.
NumberOrAuto = Annotated[
    Annotated[float, Field(ge=0, le=LARGE)] | Literal["auto"], WrapValidator(_number_or_auto)
]


class Setting(NamedTuple):
    """Weights of the views, and the strength of the L2 penalty where stage sweep picks it."""

    alpha: float
    beta: float
    l2: float | None = None

    def strength(self, l2: NumberOrAuto) -> float:
        """The strength of the penalty: the setting's own, or else the number in retrain.l2."""
        return float(l2 if self.l2 is None else self.l2)
