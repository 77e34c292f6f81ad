"""Stage ablation: images.h5, erm/, masks.h5, features.h5 -> comparison/ablation/."""

from pipeline.ablation import ablation
from stages.on_device import Run, stage


@stage("ablation")
def command(run: Run) -> str:
    """Retrain with random masks and with true masks: is it the masks?"""
    layout, chosen = run.layout, run.params
    paths = (layout.images, layout.erm, layout.masks, layout.features, layout.comparison / "ablation")
    return ablation(*paths, chosen.saliency, chosen.features, chosen.retrain, chosen.sweep, run.on, layout.scratch)
