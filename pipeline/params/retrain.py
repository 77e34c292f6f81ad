"""`retrain`: all keys that stage retrain reads (paper equation 6)."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from pipeline.params.fit import FitParams


def _number_or_auto(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One error in place of one for the number and one for the word."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError("should be a number ≥ 0, or auto") from None


Weight = Annotated[Annotated[float, Field(ge=0)] | Literal["auto"], WrapValidator(_number_or_auto)]


class RetrainParams(FitParams):
    """MaC's fit of the last layer."""

    alpha: Weight = Field(description="α: weight of the masked views; auto: what stage sweep picks")
    beta: Weight = Field(description="β: weight of the combined views; auto: what stage sweep picks")

    @model_validator(mode="after")
    def _both_or_neither(self) -> "RetrainParams":
        if (self.alpha == "auto") != (self.beta == "auto"):
            raise ValueError(f"alpha is {self.alpha}, beta is {self.beta}; give numbers to both, or auto")
        return self
