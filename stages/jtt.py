"""Stage jtt: images.h5, erm/ -> comparison/jtt/."""

from pipeline.jtt import jtt
from stages.on_device import Run, stage


@stage("jtt")
def command(run: Run) -> None:
    """Train twice, the second time with the errors of the first counting more (Liu et al. 2021)."""
    jtt(run.layout.images, run.layout.erm, run.layout.comparison / "jtt", run.params.jtt, run.on, run.layout.scratch)
