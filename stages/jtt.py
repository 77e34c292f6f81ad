"""Stage jtt: images.h5, erm/ -> comparison/jtt/."""

from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.jtt import jtt
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("jtt")
@params_option
@data_option
@device_option
def command(params_path: Path, data: Path, device: str) -> None:
    """Train twice, the second time with the errors of the first counting more (Liu et al. 2021)."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    with recorded(layout, "jtt", on.type):
        jtt(layout.images, layout.erm, layout.comparison / "jtt", chosen.jtt, on, layout.scratch)
