"""Stage masktune: images.h5, erm/ -> comparison/masktune/."""

from pipeline.masktune import masktune
from stages.on_device import Run, stage


@stage("masktune")
def command(run: Run) -> None:
    """Fine-tune ERM on images without what it looks at most (Asgari et al. 2022)."""
    masktune(run.layout.images, run.layout.erm, run.layout.comparison / "masktune", run.params.masktune, run.on, run.layout.scratch)
