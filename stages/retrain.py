"""Stage retrain: features.h5, erm/ -> retrained/."""

from pipeline.retrain import retrain
from stages.on_device import Run, stage


@stage("retrain")
def command(run: Run) -> None:
    """Retrain the last layer on the cached features."""
    retrain(run.layout.features, run.layout.erm, run.layout.masks, run.layout.retrained, run.params.retrain, run.on)
