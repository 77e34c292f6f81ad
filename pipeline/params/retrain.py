"""`retrain`: all keys that stage retrain reads (paper equation 6)."""

from pydantic import Field, model_validator

from pipeline.params.fit import FitParams
from pipeline.setting import NumberOrAuto


class RetrainParams(FitParams):
    """MaC's fit of the last layer."""

    alpha: NumberOrAuto = Field(description="α: weight of the masked views; auto: what stage sweep picks")
    beta: NumberOrAuto = Field(description="β: weight of the combined views; auto: what stage sweep picks")

    @property
    def divisible(self) -> bool:
        """Adam takes one step after another."""
        return self.solver == "lbfgs"

    @model_validator(mode="after")
    def _can_be_picked_together(self) -> "RetrainParams":
        if (self.alpha == "auto") != (self.beta == "auto"):
            raise ValueError(f"alpha is {self.alpha}, beta is {self.beta}; give numbers to both, or auto")
        if self.l2 == "auto" and self.alpha != "auto":
            raise ValueError(
                f"l2 is auto, alpha is {self.alpha}, beta is {self.beta}; the three are picked together: "
                "give a number to l2, or auto to all of them"
            )
        return self
