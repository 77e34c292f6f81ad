"""Stage retrain: features.h5, erm/ -> retrained/."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.retrain import retrain
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("retrain")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Retrain the last layer on the cached features."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "retrain", on.type):
        retrain(layout.features, layout.erm, layout.masks, layout.retrained, chosen.retrain, on)
