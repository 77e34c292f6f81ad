"""Measure scaling: saliency with 1 and with 2 workers of one core each, and what a block costs besides.

A block has 512 rows. `engine` and `merge` are measured with work that costs nothing. `engine` is the engine's
part: hand out a block, compress its masks, write its record and read it. `merge` is what is left for this
process where other ones compute: from the records of finished blocks to a masks.h5 that is sealed; beside it,
the same masks, compressed by HDF5 in this process. From these RESULTS.md says what would be the limit with
many GPUs.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom

from benchmarks import project
from benchmarks.measure import medians, repeats_option, seconds, tell
from benchmarks.project import RETRAINING_SET, SALIENCY, SIZE
from pipeline import graph, store
from pipeline.compute.connection import connect
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Cluster, Into, Scratch, blocks
from pipeline.project import Project
from pipeline.schemas import masks
from pipeline.steps import saliency as step

ROWS = 512  # of a block
MERGED = 32 * ROWS  # masks that are merged
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Nothing:
    """Work that costs nothing: the same mask for every row, as ragged as those of a network."""

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        yield lambda block: {"mask": np.repeat(ragged()[None], len(block), 0)}


def ragged() -> NDArray[np.bool_]:
    """The highest pixels of a map of noise, at its size before upsampling; about 1.5 kB when compressed."""
    noise = np.random.default_rng(0).standard_normal((SIZE // 32, SIZE // 32))
    return zoom(noise, 32, order=1) > 0.3


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
            with masks_of(folder, many * ROWS) as (scratch, into):
                scratch.map_blocks(Nothing(), blocks(many * ROWS, ROWS), into=into, cluster=cluster)

        times, nothing = {}, {"here": median(partial(engine, None), repeats)}
        for workers in (1, 2):
            os.sched_setaffinity(0, set(sorted(cores)[:workers]))  # the workers inherit it: a core each
            with connect(workers, None, "cpu") as cluster:
                times[workers] = median(partial(run, noise, cluster), repeats)
                nothing[f"{workers} workers"] = median(partial(engine, cluster), repeats)
        os.sched_setaffinity(0, cores)
        merged, by_hdf5 = (fastest(partial(each, folder), repeats) for each in (merge, merge_by_hdf5))
    rate = {workers: count / spent for workers, spent in times.items()}
    block = ROWS / rate[1]
    rows = [("network", f"{architecture}, {SIZE} px, float32, one core a worker")]
    rows += [(f"{workers} worker(s)", f"{found:.1f} images/s") for workers, found in rate.items()]
    rows.append((f"a block of {ROWS} rows with one worker", f"{block:.2f} s"))
    for name, spent in nothing.items():
        rows.append((f"engine alone, {name}", f"{1000 * spent / many:.1f} ms a block"))
    rows.append(("merge into masks.h5", f"{merged:.0f} images/s"))
    rows.append(("the same, compressed by HDF5 here", f"{by_hdf5:.0f} images/s"))
    tell(
        "scaling",
        CPU,
        rows,
        ratio=rate[2] / rate[1],
        engine_share=nothing["1 workers"] / many / block,
        milliseconds_a_block=1000 * nothing["2 workers"] / many,
        merged_images_per_second=merged,
        by_hdf5=by_hdf5,
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


def fastest(rate: Callable[[], float], repeats: int) -> float:
    """The highest of several rates."""
    return max(rate() for _ in range(repeats))


@contextmanager
def masks_of(folder: Path, count: int) -> Iterator[tuple[Scratch, Into]]:
    """A masks.h5 to be filled with so many masks."""
    scratch = Scratch(folder / "scratch", "nothing", __name__, count)
    out = folder / "nothing.h5"
    with scratch, store.create(out, "masks", masks.SCHEMA, {}, {}, scratch=scratch.folder) as artefact:
        yield scratch, {"mask": artefact.chunks("mask", (count, SIZE, SIZE))}


class StoppedError(Exception):
    """Ends a computation before its artefact is written."""


def merge(folder: Path) -> float:
    """Images a second of this process, where all blocks were computed before."""
    cut = blocks(MERGED, ROWS)
    with suppress(StoppedError), masks_of(folder, MERGED) as (scratch, into):
        scratch.map_blocks(Nothing(), cut, into=into)
        raise StoppedError

    def again() -> None:
        with masks_of(folder, MERGED) as (scratch, into):
            scratch.map_blocks(Nothing(), cut, into=into)

    return MERGED / seconds(again, CPU)


def merge_by_hdf5(folder: Path) -> float:
    """Images a second, if HDF5 compresses the masks."""

    def write() -> None:
        with store.create(folder / "nothing.h5", "masks", masks.SCHEMA, {}, {}) as artefact:
            mask = artefact.create("mask", (MERGED, SIZE, SIZE))
            for block in blocks(MERGED, ROWS):
                mask[block.slice] = one

    one = np.repeat(ragged()[None], ROWS, 0)
    return MERGED / seconds(write, CPU)


if __name__ == "__main__":
    main()
