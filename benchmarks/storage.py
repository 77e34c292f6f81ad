"""Measure `dataset.storage`: images as pixels against encoded ones, from prepare to the maps.

Both sides have the same images. An epoch of training and stage saliency read all of them.
"""

import shutil
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np

from benchmarks import project
from benchmarks.measure import device_option, medians, noting_cpu, repeats_option, tell
from benchmarks.prepare import images_of, root_option, write_jpegs
from benchmarks.project import INPUTS, TRAIN
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import keep_freed_memory, pick
from pipeline.network.training import Training
from pipeline.project import Project
from pipeline.steps.prepare import prepare

STORAGES = ("pixels", "encoded")


@click.command(help=__doc__)
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--rows", default=600, show_default=True, help="How many images.")
@root_option
@device_option
@repeats_option
def main(architecture: str, rows: int, root: Path | None, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    with project.folder() as folder:
        raw = folder / "raw"
        if root is None:
            write_jpegs(raw, rows)
        else:
            _copy_two_classes(root, raw, rows)
        sides: dict[str, Callable[[], object]] = {}
        sizes = {}
        for storage in STORAGES:
            made, context = graph.project(folder / storage), Context(str(on), folder / "scratch")
            sides[f"prepare {storage}"] = partial(_prepare, made, raw, storage, context)
            sides[f"prepare {storage}"]()
            sizes[storage] = made.path("images").stat().st_size
            project.write_erm(made, architecture)
            sides[f"epoch {storage}"] = partial(_epoch, made, architecture, device)
            sides[f"maps {storage}"] = partial(project.make_maps, made, "float32", context)
            sides[f"read {storage}"] = partial(_read, made)
        spent: dict[str, list[float]] = {name: [] for name in sides}
        noted = {name: noting_cpu(side, spent[name]) for name, side in sides.items()}
        times = medians(dict(sorted(noted.items())), on, repeats, warm_up=0)
    cpu = {name: statistics.median(measured) for name, measured in spent.items()}
    table = [("images", f"{rows} JPEG files"), ("network", architecture)]
    table += [(f"images.h5, {storage}", f"{size / 1e6:.1f} MB") for storage, size in sizes.items()]
    table += [(side, f"{times[side]:.2f} s, of all cores {cpu[side]:.2f} s") for side in sides]
    ratios = {}
    for name in ("prepare", "epoch", "maps", "read"):
        ratios[f"{name}_ratio"] = times[f"{name} encoded"] / times[f"{name} pixels"]
        ratios[f"{name}_cpu_ratio"] = cpu[f"{name} encoded"] / cpu[f"{name} pixels"]
    tell("storage", on, table, size_ratio=sizes["encoded"] / sizes["pixels"], **ratios)


def _copy_two_classes(root: Path, raw: Path, rows: int) -> None:
    """Copy images that are spread over a folder into two classes, one after the other."""
    files = sorted(root.rglob("*.jpg"))
    for number, file in enumerate(files[i] for i in np.linspace(0, len(files) - 1, rows).astype(int)):
        to = raw / f"class{number % 2}" / f"{number:06d}.jpg"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)


def _prepare(made: Project, raw: Path, storage: str, context: Context) -> None:
    params = images_of(raw).model_copy(update={"storage": storage})
    with made.open() as given:
        prepare(given, made.path("images"), params, context)


def _epoch(made: Project, architecture: str, device: str) -> None:
    with made.open("images") as given:
        Training(given, project.network(architecture), INPUTS, TRAIN, pick(device)).train_batches()


def _read(made: Project) -> None:
    """All images in a random order, in batches."""
    with made.open("images") as given:
        images = given.file("images")
        order = np.random.default_rng(0).permutation(len(images["label"]))
        for start in range(0, len(order), 20):
            images.rows("image", order[start : start + 20])


if __name__ == "__main__":
    main()
