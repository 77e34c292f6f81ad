"""Measure L-BFGS on a cluster: the same fit by this process alone, and by 1, 2, … workers of one core each.

The features are noise, and lie in the page cache. All heads must have the same bytes. It runs on Linux alone,
which can give a process its cores.
"""

import os
import time
from pathlib import Path

import click
import torch

from benchmarks import project
from benchmarks.measure import tell
from benchmarks.project import RETRAIN, SELECTION
from pipeline import graph
from pipeline.compute.connection import connect
from pipeline.compute.context import Context
from pipeline.compute.engine import Cluster
from pipeline.project import Project
from pipeline.steps.retrain import retrain

PARAMS = RETRAIN.model_copy(update={"solver": "lbfgs", "l2": 3.0, "standardize": True, "memory": "streamed"})


@click.command(help=__doc__)
@click.option("--rows", default=40_000, show_default=True, help="Training images.")
@click.option("--width", default=2048, show_default=True, help="Features D.")
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option("--workers", default="1,2", show_default=True, help="Numbers of workers.")
def main(rows: int, width: int, draws: int, workers: str) -> None:
    counts = sorted(map(int, workers.split(",")))
    if not hasattr(os, "sched_setaffinity"):
        raise click.ClickException("this system cannot give a process its cores; measure on Linux")
    cores = sorted(os.sched_getaffinity(0))
    if counts[-1] > len(cores):
        raise click.ClickException(f"{counts[-1]} workers need a core each, and there are {len(cores)}")
    torch.set_num_threads(1)
    with project.folder() as folder:
        noise = graph.project(folder)
        project.write_head(noise, width)
        project.write_features(noise, rows, draws, held_out=(1000, 1000))
        times = {"alone": fitted(noise, None)}
        expected = head(noise)
        for count in counts:
            # Of this thread alone, but what it starts inherits it: the cluster's threads, and the workers.
            os.sched_setaffinity(0, set(cores[:count]))
            with connect(count, None, "cpu") as cluster:
                times[f"workers_{count}"] = fitted(noise, cluster)
            if head(noise) != expected:
                raise click.ClickException(f"with {count} workers it is another head")
    os.sched_setaffinity(0, set(cores))
    size = ("size", f"{rows} x {width}, R = {draws}")
    ratio = {"ratio": times[f"workers_{counts[0]}"] / times[f"workers_{counts[-1]}"]}
    table = [size, *((name, f"{seconds:.1f} s") for name, seconds in times.items())]
    tell("spread", torch.device("cpu"), table, **times, **ratio)


def fitted(noise: Project, cluster: Cluster | None) -> float:
    """The seconds that a fit takes."""
    with noise.open("erm", "features") as given:
        start = time.perf_counter()
        context = Context("cpu", noise.data / "scratch", cluster)
        retrain(given, noise.path("retrained"), PARAMS, SELECTION, context)
        return time.perf_counter() - start


def head(noise: Project) -> bytes:
    """The file of the head."""
    return Path(noise.path("retrained"), "head.safetensors").read_bytes()


if __name__ == "__main__":
    main()
