"""Scaling: saliency with 1 and 2 workers of one core each, and what a block of 512 rows costs beside its computation.

`engine` and `merge` are of work that costs nothing: the engine's part (hand out a block, write its shard, verify and read it) and the
stage's own (shards into masks.h5, in this process). From these the page says what would be the limit with many GPUs.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks import project
from benchmarks.measure import medians, repeats_option, seconds, tell
from pipeline import saliency as stage
from pipeline.compute.cluster import connect
from pipeline.compute.engine import Arrays, Block, Cluster, Shards, blocks
from pipeline.saliency import saliency

ROWS = 512  # of a block
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Nothing:
    """Work that costs nothing: the same mask, half of it 1, for every row."""

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        mask = np.packbits(np.arange(224 * 224).reshape(224, 224) % 448 < 224, axis=1)
        one = {"cam": np.zeros((7, 7), np.float32), "mask": mask, "target": np.zeros((), np.int64)}
        yield lambda block: {name: np.repeat(array[None], len(block), 0) for name, array in one.items()}


@click.command(help=__doc__)
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--images", "count", default=1024, show_default=True)
@click.option("--blocks", "many", default=16, show_default=True, help="Blocks of 512 rows of the engine's own part.")
@repeats_option
def main(architecture: str, count: int, many: int, repeats: int) -> None:
    cores = os.sched_getaffinity(0)
    with project.folder() as folder:
        images, erm = folder / "images.h5", folder / "erm"
        project.write_images(images, count)
        project.write_erm(erm, images, architecture)

        def run(cluster: Cluster | None) -> None:
            saliency(images, erm, folder / "masks.h5", project.SALIENCY, CPU, folder / "scratch", cluster=cluster)

        def engine(cluster: Cluster | None) -> None:
            with Shards(folder / "scratch", "nothing", 0) as shards:
                shards.map_blocks(Nothing(), blocks(many * ROWS, ROWS), lambda *_: None, cluster=cluster)

        times, nothing = {}, {"here": medians({"engine": lambda: engine(None)}, CPU, repeats)["engine"]}
        for workers in (1, 2):
            os.sched_setaffinity(0, set(sorted(cores)[:workers]))  # inherited by the workers: a core each
            with connect(workers, None, "cpu") as cluster:
                times[workers] = medians({"stage": lambda c=cluster: run(c)}, CPU, repeats)["stage"]
                nothing[f"{workers} workers"] = medians({"engine": lambda c=cluster: engine(c)}, CPU, repeats)["engine"]
        os.sched_setaffinity(0, cores)
        merged = merge(folder, images, erm, count)
    rate = {workers: count / spent for workers, spent in times.items()}
    block = ROWS / rate[1]
    overhead = nothing["1 workers"] / many / block
    tell(
        "scaling",
        CPU,
        [
            ("network", f"{architecture}, 224 px, float32, one core a worker"),
            *((f"{workers} worker(s)", f"{found:.1f} images/s") for workers, found in rate.items()),
            ("a block of 512 rows with one worker", f"{block:.2f} s"),
            *((f"engine alone, {name}", f"{1000 * spent / many:.1f} ms a block") for name, spent in nothing.items()),
            ("merge into masks.h5", f"{merged:.0f} images/s"),
        ],
        ratio=rate[2] / rate[1],
        engine_share=overhead,
        milliseconds_a_block=1000 * nothing["2 workers"] / many,
        merged_images_per_second=merged,
        architecture=architecture,
    )


def merge(folder: Path, images: Path, erm: Path, count: int) -> float:
    """Images a second of the whole stage where the work costs nothing."""
    work, stage._Work = stage._Work, lambda *_: Nothing()  # type: ignore[assignment, misc]
    rows = np.arange(count)
    try:
        spent = seconds(lambda: saliency(images, erm, folder / "masks.h5", project.SALIENCY, CPU, folder / "scratch", rows=rows), CPU)
    finally:
        stage._Work = work  # type: ignore[misc]
    return len(rows) / spent


if __name__ == "__main__":
    main()
