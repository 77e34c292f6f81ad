"""Stage train: images.h5 -> erm/."""

from pipeline.train import train
from stages.on_device import Run, stage


@stage("train")
def command(run: Run) -> None:
    """Train the classifier by ERM."""
    train(run.layout.images, run.layout.erm, run.params.model, run.params.train, run.on, run.layout.scratch)
