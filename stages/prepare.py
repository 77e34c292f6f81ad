"""Stage prepare: raw images -> images.h5."""

from pathlib import Path

import click

from pipeline import params
from pipeline.prepare import prepare
from stages.common import Layout, data_option, params_option, recorded
from stages.on_cluster import cluster_of, cluster_options


@click.command("prepare")
@params_option
@data_option
@cluster_options
def command(params_path: Path, data: Path, workers: int | None, scheduler_address: str | None) -> None:
    """Decode the dataset's images into images.h5."""
    layout = Layout(data)
    chosen = params.load(params_path)
    with recorded(layout, "prepare", "cpu"), cluster_of(workers, scheduler_address, "cpu") as cluster:
        prepare(chosen.dataset, layout.images, layout.scratch, cluster)
