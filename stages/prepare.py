"""Stage prepare: raw images -> images.h5."""

from pathlib import Path

import click

from pipeline import params
from pipeline.prepare import prepare
from stages.common import Layout, data_option, params_option, recorded


@click.command("prepare")
@params_option
@data_option
def command(params_path: Path, data: Path) -> None:
    """Decode the dataset's images into images.h5."""
    layout = Layout(data)
    chosen = params.load(params_path)
    with recorded(layout, "prepare", "cpu"):
        prepare(chosen.dataset, layout.images, layout.scratch)
