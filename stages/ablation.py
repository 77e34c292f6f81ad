"""Stage ablation: images.h5, erm/, masks.h5, features.h5 -> comparison/ablation/."""

from pathlib import Path

import click

from pipeline import params
from pipeline.ablation import ablation
from pipeline.device import pick
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("ablation")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Retrain with random masks and with true masks: is it the masks?"""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    paths = (layout.images, layout.erm, layout.masks, layout.features, layout.comparison / "ablation")
    with recorded(layout, "ablation", on.type):
        text = ablation(*paths, chosen.saliency, chosen.features, chosen.retrain, chosen.sweep, on, layout.scratch)
    click.echo(text)
