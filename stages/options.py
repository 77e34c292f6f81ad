"""Options that several commands have."""

from pathlib import Path

import click

params_option = click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    default="params.yaml",
    show_default=True,
    help="File with the parameters.",
)
data_option = click.option(
    "--data",
    "data",
    type=click.Path(path_type=Path),
    default="data",
    show_default=True,
    help="Folder with all artefacts.",
)
set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a parameter, such as retrain.alpha=1. Can be given several times.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (CUDA if there is a device, else cpu), cpu, cuda or cuda:N.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of processes that do the work on this machine; with CUDA, each needs a GPU.",
)
scheduler_option = click.option(
    "--scheduler-address",
    envvar="DASK_SCHEDULER_ADDRESS",
    help="Dask scheduler whose workers do the work, such as tcp://host:8786.",
)
