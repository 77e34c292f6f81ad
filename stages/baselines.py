"""Stage baselines: features.h5, erm/ -> baselines.json."""

from pathlib import Path

import click

from pipeline import params
from pipeline.baselines import baselines
from pipeline.device import pick
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("baselines")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Fit other last-layer methods on the cached features: a table here, baselines.json."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "baselines", on.type):
        text = baselines(layout.images, layout.features, layout.erm, layout.baselines, chosen.baselines, chosen.retrain, on)
    click.echo(text)
