"""Stage saliency: images.h5, erm/ -> masks.h5."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.saliency import saliency
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("saliency")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Find the core of every training image: its top-K pixels by xGradCAM."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "saliency", on.type):
        saliency(layout.images, layout.erm, layout.masks, chosen.saliency, on, layout.scratch)
