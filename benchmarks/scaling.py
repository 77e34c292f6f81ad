"""Measure scaling: saliency with 1 and with 2 workers of one core each, and what a block costs besides.

A block has 512 rows. `engine` and `merge` are measured with work that costs nothing. `engine` is the engine's
part: hand out a block, write its shard, check it and read it. `merge` is the stage's own part: shards into
masks.h5, in this process. From these RESULTS.md says what would be the limit with many GPUs.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import click
import numpy as np
import torch

from benchmarks import project
from benchmarks.measure import medians, repeats_option, seconds, tell
from benchmarks.project import RETRAINING_SET, SALIENCY, SIZE
from pipeline import graph
from pipeline.compute.cluster import connect
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Cluster, Shards, blocks
from pipeline.project import Project
from pipeline.steps import masks
from pipeline.steps import saliency as step

ROWS = 512  # of a block
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Nothing:
    """Work that costs nothing: the same mask, with half of its pixels, for every row."""

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        half = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % (2 * SIZE) < SIZE
        mask, told = np.packbits(half, axis=1)[None], np.empty(0, np.uint8)
        yield lambda block: {"mask": np.repeat(mask, len(block), 0), "told": told}


@click.command(help=__doc__)
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--images", "count", default=1024, show_default=True, help="Number of images.")
@click.option("--blocks", "many", default=16, show_default=True, help="Blocks of the engine's own part.")
@repeats_option
def main(architecture: str, count: int, many: int, repeats: int) -> None:
    cores = os.sched_getaffinity(0)
    with project.folder() as folder:
        noise = graph.project(folder)
        project.write_images(noise, count)
        project.write_erm(noise, architecture)

        def engine(cluster: Cluster | None) -> None:
            with Shards(folder / "scratch", "nothing", __name__) as shards:
                shards.map_blocks(Nothing(), blocks(many * ROWS, ROWS), lambda *_: None, cluster=cluster)

        times, nothing = {}, {"here": median(partial(engine, None), repeats)}
        for workers in (1, 2):
            os.sched_setaffinity(0, set(sorted(cores)[:workers]))  # the workers inherit it: a core each
            with connect(workers, None, "cpu") as cluster:
                times[workers] = median(partial(run, noise, cluster), repeats)
                nothing[f"{workers} workers"] = median(partial(engine, cluster), repeats)
        os.sched_setaffinity(0, cores)
        merged = merge(noise, count)
    rate = {workers: count / spent for workers, spent in times.items()}
    block = ROWS / rate[1]
    rows = [("network", f"{architecture}, {SIZE} px, float32, one core a worker")]
    rows += [(f"{workers} worker(s)", f"{found:.1f} images/s") for workers, found in rate.items()]
    rows.append((f"a block of {ROWS} rows with one worker", f"{block:.2f} s"))
    for name, spent in nothing.items():
        rows.append((f"engine alone, {name}", f"{1000 * spent / many:.1f} ms a block"))
    rows.append(("merge into masks.h5", f"{merged:.0f} images/s"))
    tell(
        "scaling",
        CPU,
        rows,
        ratio=rate[2] / rate[1],
        engine_share=nothing["1 workers"] / many / block,
        milliseconds_a_block=1000 * nothing["2 workers"] / many,
        merged_images_per_second=merged,
        architecture=architecture,
    )


def median(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a function in seconds."""
    return medians({"it": function}, CPU, repeats)["it"]


def run(noise: Project, cluster: Cluster | None = None) -> None:
    """The stage saliency, from images.h5 to maps.h5."""
    with noise.open("images", "erm") as given:
        context = Context("cpu", noise.data / "scratch", cluster)
        step.saliency(given, noise.path("maps"), RETRAINING_SET, SALIENCY, context)


def merge(noise: Project, count: int) -> float:
    """Images a second of the whole stage masks where the work costs nothing."""
    run(noise)  # maps.h5
    masking, masks._Work.open = masks._Work.open, lambda _: Nothing().open()  # type: ignore[method-assign]
    try:
        context = Context("cpu", noise.data / "scratch")
        return count / seconds(partial(project.make_masks, noise, context), CPU)
    finally:
        masks._Work.open = masking  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
