"""Stage features: images.h5, erm/, masks.h5 -> features.h5."""

from pipeline.features import features
from stages.on_cluster import Run, stage


@stage("features")
def command(run: Run) -> None:
    """Cache the features of originals, masked and combined images."""
    features(
        run.layout.images,
        run.layout.erm,
        run.layout.masks,
        run.layout.features,
        run.params.features,
        run.on,
        run.layout.scratch,
        cluster=run.cluster,
    )
