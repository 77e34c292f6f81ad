"""Stage features: images.h5, erm/, masks.h5 -> features.h5."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.features import features
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("features")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Cache the features of originals, masked and combined images."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "features", on.type):
        features(layout.images, layout.erm, layout.masks, layout.features, chosen.features, on, layout.scratch)
