"""Stage baselines: features.h5, erm/ -> baselines.json."""

from pipeline.baselines import baselines
from stages.on_device import Run, stage


@stage("baselines")
def command(run: Run) -> str:
    """Fit other last-layer methods on the cached features: a table here, baselines.json."""
    return baselines(
        run.layout.images, run.layout.features, run.layout.erm, run.layout.baselines, run.params.baselines, run.params.retrain, run.on
    )
