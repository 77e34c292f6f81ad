"""`retrain`: all keys that stage retrain reads (paper equation 6)."""

from pydantic import Field

from pipeline.params.fit import FitParams


class RetrainParams(FitParams):
    """MaC's fit of the last layer."""

    alpha: float = Field(ge=0, description="α: weight of the masked views")
    beta: float = Field(ge=0, description="β: weight of the combined views")
