"""Measure retraining whose features are read from the file in every pass, against features in memory.

Each side is a process of its own: its time, start-up not counted, and the most memory that it had, all of it
counted. The file has just been written, so it is in the page cache as far as that is large enough. By
default, the size is CelebA's, whose features do not fit in the memory of a small machine: `--sides streamed`
measures this side alone. Heads of both sides must have the same bytes.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import project
from benchmarks.measure import tell
from benchmarks.project import RETRAIN, SELECTION
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import keep_freed_memory
from pipeline.last_layer.grid import fit_grid, scores_of_test_split
from pipeline.params.fit import FitParams
from pipeline.params.sweep import SweepParams
from pipeline.steps.retrain import retrain

HELD_OUT = (19_867, 19_962)  # CelebA's
# 27 settings and 25 seeds.
SWEEP = SweepParams(
    alphas=[0, 1, 2],
    betas=[0, 1, 2, 3, 4, 5, 10, 20, 30],
    pick="criterion",
    default=(1, 30),
    l2s=[0],
    seeds=5,
    average=5,
)
CPU = torch.device("cpu")
STAGES = ("retrain", "sweep", "lbfgs")


def run(folder: Path, stage: str, memory: str, epochs: int, standardize: bool) -> None:
    """Run one side in this process, and print its figures as JSON."""
    keep_freed_memory()
    made = graph.project(folder)
    changes: dict[str, Any] = {"memory": memory, "epochs": epochs, "standardize": standardize}
    if stage == "lbfgs":
        changes |= {"solver": "lbfgs", "l2": 3.0, "standardize": True}
    params = RETRAIN.model_copy(update=changes)
    start, before = time.perf_counter(), time.process_time()
    with made.open("erm", "features") as given:
        if stage == "sweep":
            features, erm = given.file("features"), given.model("erm").head()
            fit = FitParams.model_validate(params.model_dump(exclude={"alpha", "beta"}))
            few = fit.model_copy(update={"seeds": SWEEP.seeds, "average": SWEEP.average})
            grid = fit_grid(features, erm, few, SWEEP, SELECTION.criterion, CPU)
            scores_of_test_split(features, grid.heads)
            found = grid.heads.weight.numpy().tobytes()
        else:
            out = made.path("retrained")
            retrain(given, out, params, SELECTION, Context("cpu", folder / "scratch"))
            found = (out / "head.safetensors").read_bytes()
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "cpu": time.process_time() - before, "peak": _peak(), "size": len(found)}
    click.echo(json.dumps({**figures, "heads": hashlib.sha256(found).hexdigest()}))


def _peak() -> int:
    """The most resident memory of this process, bytes. The kernel's other figure includes the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _require_room(folder: Path, needed: int) -> None:
    """Raise an error if the disk has no room for the features."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise click.ClickException(
            f"{folder.parent}: the features need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
            "name a folder on another disk in TMPDIR, or take fewer --rows or --storage float16"
        )


@click.command(help=__doc__)
@click.option("--rows", default=162_770, show_default=True, help="Training images.")
@click.option("--width", default=2048, show_default=True, help="Features D.")
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option("--epochs", default=1, show_default=True, help="Passes over the retraining set.")
@click.option("--storage", default="float32", show_default=True, help="float32 or float16.")
@click.option("--standardize", is_flag=True, help="Standardise the features.")
@click.option("--stages", default="retrain,sweep", show_default=True, help="Of retrain, sweep, lbfgs.")
@click.option("--sides", default="resident,streamed", show_default=True, help="Which sides.")
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(
    rows: int,
    width: int,
    draws: int,
    epochs: int,
    storage: str,
    standardize: bool,
    stages: str,
    sides: str,
    folder: Path | None,
) -> None:
    if folder is not None:
        return run(folder, stages, sides, epochs, standardize)
    figures: dict[str, Any] = {}
    table = [("size", f"{rows} x {width}, R = {draws}, {storage}, {epochs} epochs")]
    with project.folder() as made:
        noise = graph.project(made)
        _require_room(made, (rows * (1 + 2 * draws) + sum(HELD_OUT)) * width * np.dtype(storage).itemsize)
        project.write_head(noise, width)
        project.write_features(noise, rows, draws, HELD_OUT, storage=storage)
        for stage in stages.split(","):
            found = {}
            for side in sides.split(","):
                own = ["--folder", str(made), "--stages", stage, "--sides", side, "--epochs", str(epochs)]
                options = [*own, *(["--standardize"] if standardize else [])]
                command = [sys.executable, "-m", "benchmarks.streaming", *options]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                each = found[side] = json.loads(done.stdout.splitlines()[-1])
                said = f"{each['seconds']:.1f} s, {each['cpu']:.1f} s of CPU, {each['peak'] / 2**20:.0f} MiB"
                table.append((f"{stage}, {side}", said))
                figures[f"{stage}_{side}_seconds"] = each["seconds"]
                figures[f"{stage}_{side}_gib"] = each["peak"] / 2**30
                figures[f"{stage}_{side}_but_heads_gib"] = (each["peak"] - each["size"]) / 2**30
            if len({each["heads"] for each in found.values()}) > 1:
                raise click.ClickException(f"{stage}: the heads differ")
            if len(found) == 2:
                figures[f"{stage}_ratio"] = found["streamed"]["seconds"] / found["resident"]["seconds"]
    tell("streaming", CPU, table, **figures)
    return None


if __name__ == "__main__":
    main()
