"""The options that commands share."""

from pathlib import Path

import click

params_option = click.option(
    "--params",
    "params_path",
    type=click.Path(path_type=Path),
    default="params.yaml",
    show_default=True,
    help="File of the parameters.",
)
data_option = click.option(
    "--data",
    "data",
    type=click.Path(path_type=Path),
    default="data",
    show_default=True,
    help="Folder of all artefacts.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (CUDA where there is one), cpu, cuda or cuda:N.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that do the work on this machine; with CUDA, one for each GPU.",
)
scheduler_option = click.option(
    "--scheduler-address",
    envvar="DASK_SCHEDULER_ADDRESS",
    help="A Dask scheduler whose workers do the work, such as tcp://host:8786.",
)
