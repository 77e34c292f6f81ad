"""The frame of a stage whose work the workers of a Dask cluster can do: that of `on_device`, and where the work is to be done."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pipeline.compute.device import pick
from pipeline.compute.engine import Cluster
from pipeline.params import Params
from stages import on_device
from stages.common import Layout, recorded

if TYPE_CHECKING:
    from pipeline.compute.cluster import DaskCluster

_workers = click.option("--workers", type=click.IntRange(1), help="Processes that do the work here; on CUDA devices one a GPU.")
_scheduler = click.option(
    "--scheduler-address", envvar="DASK_SCHEDULER_ADDRESS", help="A Dask scheduler whose workers do the work, such as tcp://host:8786."
)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command whose work a Dask cluster can do."""
    return _workers(_scheduler(function))


def cluster_of(workers: int | None, address: str | None, device: str) -> "AbstractContextManager[DaskCluster | None]":
    """The cluster that the options ask for; None where they ask for none."""
    if workers is None and address is None:
        return nullcontext()
    from pipeline.compute.cluster import connect  # distributed takes a while to import

    return connect(workers, address, device)


@dataclass(frozen=True)
class Run(on_device.Run):
    """What a stage is called with; with a cluster `on` is the kind of device that its workers have."""

    cluster: Cluster | None


def stage(name: str) -> on_device.Stage:
    """`on_device.stage` for a function that takes the cluster too."""

    def decorate(function: Callable[[Run], str | None]) -> click.Command:
        @wraps(function)
        def with_cluster(layout: Layout, params: Params, device: str, workers: int | None, scheduler_address: str | None) -> str | None:
            with cluster_of(workers, scheduler_address, device) as cluster:
                on = pick(device) if cluster is None else cluster.on
                with recorded(layout, name, on.type):
                    return function(Run(layout, params, on, cluster))

        return on_device.command_of(with_cluster, name, cluster_options)

    return decorate
