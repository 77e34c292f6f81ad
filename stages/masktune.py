"""Stage masktune: images.h5, erm/ -> comparison/masktune/."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.masktune import masktune
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("masktune")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Fine-tune ERM on images without what it looks at most (Asgari et al. 2022)."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "masktune", on.type):
        masktune(layout.images, layout.erm, layout.comparison / "masktune", chosen.masktune, on, layout.scratch)
