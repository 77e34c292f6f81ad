"""Stage sweep: features.h5, erm/ -> sweep/."""

from pipeline.sweep import sweep
from stages.on_device import Run, stage


@stage("sweep")
def command(run: Run) -> None:
    """Retrain with every alpha and beta of the grid at once."""
    sweep(run.layout.features, run.layout.erm, run.layout.sweep, run.params.sweep, run.params.retrain, run.on)
