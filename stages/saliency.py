"""Stage saliency: images.h5, erm/ -> masks.h5."""

from pipeline.saliency import saliency
from stages.on_cluster import Run, stage


@stage("saliency")
def command(run: Run) -> None:
    """Compute the map and the top-K mask of every training image."""
    saliency(run.layout.images, run.layout.erm, run.layout.masks, run.params.saliency, run.on, run.layout.scratch, cluster=run.cluster)
