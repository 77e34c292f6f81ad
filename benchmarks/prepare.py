"""Measure prepare: JPEG files to images.h5, against a bare loop of decoding and resizing.

The loop runs in one process, and its speed is multiplied by the number of cores. It also runs in as many
processes as there are cores, which shows how much of that the machine gives; once more they write the pixels
to a file each, which shows what the disk's part is. CPU time does not depend on what else the machine does,
but for the caches and the clock.
"""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from benchmarks import project
from benchmarks.measure import medians, noting_cpu, repeats_option, tell
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import keep_freed_memory
from pipeline.machine import usable_cores
from pipeline.params.dataset import DatasetParams
from pipeline.steps.prepare import prepare

SIDE = 256  # of the stored images, pixels
root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="A folder of JPEG files, a folder in it for each class, in place of made files.",
)


@click.command(help=__doc__)
@click.option("--rows", default=1024, show_default=True, help="How many files are made.")
@root_option
@repeats_option
def main(rows: int, root: Path | None, repeats: int) -> None:
    keep_freed_memory()  # as the commands do
    with project.folder() as folder:
        made, context = graph.project(folder), Context("cpu", folder / "scratch")
        params = images_of(root or folder / "raw")
        if root is None:
            write_jpegs(folder / "raw", rows)
        files = sorted(Path(params.root).rglob("*.jpg"))
        for file in files:
            file.read_bytes()  # into the page cache, for both

        names = ("stage", "bare", "processes", "written")
        spent: dict[str, list[float]] = {side: [] for side in names}  # CPU time, seconds

        def stage() -> None:
            with made.open() as given:
                prepare(given, made.path("images"), params, context)

        cores = usable_cores()
        parts = [files[first::cores] for first in range(cores)]
        outs = [folder / f"pixels{first}" for first in range(cores)]
        with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
            sides = {
                "stage": noting_cpu(stage, spent["stage"]),
                "bare": lambda: spent["bare"].append(decode(files)),
                "processes": lambda: spent["processes"].append(sum(pool.map(decode, parts))),
                "written": lambda: spent["written"].append(sum(pool.map(decode, parts, outs))),
            }
            times = medians(sides, torch.device("cpu"), repeats)
    cpu = {side: statistics.median(measured[1:]) for side, measured in spent.items()}  # without the warm-up
    rate, loop, processes, written = (len(files) / times[side] for side in sides)
    tell(
        "prepare",
        torch.device("cpu"),
        [
            ("images", f"{len(files)} JPEG files to {SIDE} x {SIDE}"),
            ("the stage, files to images.h5", f"{rate:.0f} images/s"),
            (f"bare loop in one process, times {cores} cores", f"{loop * cores:.0f} images/s"),
            (f"bare loop in {cores} processes", f"{processes:.0f} images/s"),
            ("the same, and the pixels written", f"{written:.0f} images/s"),
            *(
                (f"CPU time, {side}", f"{1e3 * each / len(files):.2f} ms an image")
                for side, each in cpu.items()
            ),
        ],
        ratio=rate / (loop * cores),
        ratio_to_processes=rate / processes,
        ratio_to_written=rate / written,
        cpu_ratio=cpu["bare"] / cpu["stage"],
        cpu_ratio_to_processes=cpu["processes"] / cpu["stage"],
        cpu_ratio_to_written=cpu["written"] / cpu["stage"],
        images_per_second=rate,
        cores=cores,
    )


def images_of(root: Path) -> DatasetParams:
    """The images below a folder, a folder in it for each class."""
    return DatasetParams(
        name="folder",
        root=str(root),
        options={"metadata": None},
        stored_size=SIDE,
        to_stored="squash",
        range="auto",
        interpolation="bilinear",
        storage="pixels",
        on_error="fail",
        on_duplicates="warn",
    )


def decode(files: Sequence[Path], out: Path | None = None) -> float:
    """The bare loop, which may write the pixels to a file; its CPU time in seconds."""
    start = time.process_time()
    with nullcontext() if out is None else out.open("wb") as pixels:
        for file in files:
            with Image.open(file) as image:
                found = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            if pixels is not None:
                pixels.write(found)
    return time.process_time() - start


def write_jpegs(root: Path, count: int) -> None:
    """Write pictures of 500 x 375 pixels like those of a camera: smooth, with some noise."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 6, (375, 500, 3)), 0, 255).astype(np.uint8)
        file = root / f"class{number % 2}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(file, quality=90)


if __name__ == "__main__":
    main()
