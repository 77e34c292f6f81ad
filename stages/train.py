"""Stage train: images.h5 -> erm/."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.train import train
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("train")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Train the classifier by ERM."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "train", on.type):
        train(layout.images, layout.erm, chosen.model, chosen.train, on, layout.scratch)
