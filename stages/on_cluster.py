"""The frame of a stage whose work the workers of a Dask cluster can do: that of `on_device`, and where the work is to be done."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click
import torch

from pipeline.engine import Cluster
from stages import on_device

_workers = click.option("--workers", type=click.IntRange(1), help="Processes that do the work here; on CUDA devices one a GPU.")
_scheduler = click.option(
    "--scheduler-address", envvar="DASK_SCHEDULER_ADDRESS", help="A Dask scheduler whose workers do the work, such as tcp://host:8786."
)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command whose work a Dask cluster can do."""
    return _workers(_scheduler(function))


def cluster_of(workers: int | None, address: str | None, on: torch.device) -> "AbstractContextManager[Cluster | None]":
    """The cluster that the options ask for; None where they ask for none."""
    if workers is None and address is None:
        return nullcontext()
    from pipeline.cluster import connect  # distributed takes a while to import

    return connect(workers, address, on)


@dataclass(frozen=True)
class Run(on_device.Run):
    """What a stage is called with."""

    cluster: Cluster | None


def stage(name: str) -> on_device.Stage:
    """`on_device.stage` for a function that takes the cluster too."""

    def decorate(function: Callable[[Run], str | None]) -> click.Command:
        @wraps(function)
        def with_cluster(run: on_device.Run, workers: int | None, scheduler_address: str | None) -> str | None:
            with cluster_of(workers, scheduler_address, run.on) as cluster:
                return function(Run(run.layout, run.params, run.on, cluster))

        return on_device.stage(name, cluster_options)(with_cluster)

    return decorate
