"""Stage train: images.h5 -> erm/. On several GPUs: `torchrun --nproc-per-node=N -m stages.train`."""

import runpy
import sys

from pipeline.compute.ranks import ranks
from pipeline.train import train
from stages.on_device import Run, stage


@stage("train")
def command(run: Run) -> None:
    """Train the classifier by ERM."""
    with ranks(run.on) as (together, on):
        train(run.layout.images, run.layout.erm, run.params.model, run.params.train, on, run.layout.scratch, together)


if __name__ == "__main__":  # as torchrun starts it: `mac train`, without an import that would make DVC train again for any new command
    sys.argv.insert(1, "train")
    runpy.run_module("stages", run_name="__main__")
