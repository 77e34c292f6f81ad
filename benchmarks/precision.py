"""Measure what bfloat16 does to the masks and to the result.

The stages from saliency to retrain of a finished project run again in both precisions.
"""

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import device_option, tell
from pipeline import graph, params_file
from pipeline.compute.context import Context
from pipeline.compute.device import pick
from pipeline.params.block import Precision
from pipeline.params.features import FeaturesParams
from pipeline.params.fit import FitParams
from pipeline.params.masks import MasksParams
from pipeline.params.originals import OriginalsParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.params_file import Params
from pipeline.project import Project
from pipeline.results.tables import worst_of
from pipeline.steps.evaluate import measure
from pipeline.steps.features import features
from pipeline.steps.masks import masks
from pipeline.steps.originals import originals
from pipeline.steps.retrain import retrain
from pipeline.steps.saliency import saliency
from pipeline.steps.sweep import sweep
from stages.options import data_option, params_option

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@click.command(help=__doc__)
@params_option
@data_option
@device_option
def main(params_path: Path, data: Path, device: str) -> None:
    on, chosen = pick(device), params_file.load(params_path)
    with tempfile.TemporaryDirectory(prefix="mac-benchmark-") as name:
        found = {}
        for precision in PRECISIONS:
            folder = Path(name) / precision
            found[precision] = _made_again(data, folder, precision, chosen, str(on))
        differ, core = _differences(found["float32"], found["bfloat16"])
        tests = {precision: _test_metrics(again) for precision, again in found.items()}
    share, most = float(differ.mean()), float(differ.max())
    worst, _ = worst_of(tests["float32"])
    rows = [
        ("mask pixels that differ, of the image", f"{100 * share:.3f} %"),
        ("of the mask", f"{100 * share / core:.3f} %"),
        ("most in one image", f"{100 * most:.3f} % of it"),
    ]
    figures = {}
    for precision, metrics in tests.items():
        mean, std = metrics[worst]["mean"], metrics[worst]["std"]
        figures[f"worst_{precision}"] = mean
        rows.append((f"MaC, {worst.replace('_', ' ')}, {precision}", f"{100 * mean:.2f} ± {100 * std:.2f} %"))
    for precision, metrics in tests.items():
        rows.append((f"MaC, mean, {precision}", f"{100 * metrics['raw_mean']['mean']:.2f} %"))
    tell("precision", on, rows, share_of_pixels=share, share_of_mask=share / core, **figures)


def _made_again(data: Path, folder: Path, precision: Precision, chosen: Params, device: str) -> Project:
    """The project with masks, features, sweep and retrained heads in `folder`, made in one precision."""
    again = graph.project(
        data,
        maps=folder / "maps.h5",
        originals=folder / "originals.h5",
        masks=folder / "masks.h5",
        features=folder / "features.h5",
        sweep=folder / "sweep",
        retrained=folder / "retrained",
    )
    mapping = chosen.of(SaliencyParams).model_copy(update={"precision": precision})
    masking = chosen.of(MasksParams).model_copy(update={"previews": 0})
    caching = chosen.of(FeaturesParams).model_copy(update={"precision": precision})
    context = Context(device, folder / "scratch")
    with again.open("images", "erm") as given:
        chosen_set = chosen.of(RetrainingSetParams)
        saliency(given, again.path("maps"), chosen_set, mapping, context)
        originals(given, again.path("originals"), chosen_set, OriginalsParams(precision=precision), context)
    with again.open("images", "erm", "maps") as given:
        masks(given, again.path("masks"), masking, context)
    with again.open("images", "erm", "originals", "masks") as given:
        features(given, again.path("features"), caching, context)
    with again.open("images", "erm", "masks", "features") as given:
        sweeping = (chosen.of(SweepParams), chosen.of(FitParams), chosen.of(SelectionParams))
        sweep(given, again.path("sweep"), *sweeping, context)
    with again.open("erm", "features", "sweep") as given:
        params = (chosen.of(RetrainParams), chosen.of(SelectionParams))
        retrain(given, again.path("retrained"), *params, context)
    return again


def _differences(one: Project, other: Project) -> tuple[NDArray[np.float64], float]:
    """The share of pixels in which the masks of each image differ, (M,), and the share that a mask has."""
    with one.open("masks") as exact, other.open("masks") as rough:
        cores, others = exact.file("masks")["mask"], rough.file("masks")["mask"]
        differ = [(cores[position] ^ others[position]).mean() for position in range(len(cores))]
        return np.array(differ), float(cores[0].mean())


def _test_metrics(project: Project) -> dict[str, Any]:
    """What is measured of MaC on the test split."""
    with project.open("images", "erm", "features", "retrained") as given:
        metrics: dict[str, Any] = measure(given)[0]["mac"]["test"]
        return metrics


if __name__ == "__main__":
    main()
