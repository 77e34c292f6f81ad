"""Stage sweep: features.h5, erm/ -> sweep/."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.sweep import sweep
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("sweep")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Retrain with every alpha and beta of the grid at once."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "sweep", on.type):
        sweep(layout.features, layout.erm, layout.sweep, chosen.sweep, chosen.retrain, on)
