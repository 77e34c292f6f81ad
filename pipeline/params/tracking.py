"""`tracking`: who is told how a run goes. No stage reads it, and it changes nothing of what is made."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.params.block import Block

TrackerName = Literal["none", "dvclive", "tensorboard", "mlflow"]


class TrackingParams(Block):
    """Which tracker of experiments."""

    block: ClassVar[str] = "tracking"
    of_machine: ClassVar[set[str]] = {"to"}

    to: TrackerName = Field(
        description="who is told the epochs of ERM, the curves of retraining, the final metrics and the "
        "report; each but none is an optional package. What is made is the same"
    )
