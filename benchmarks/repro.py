"""The next answer as a user has it: the wall clock of `dvc repro` after a new α, in a project of Waterbirds' size.

A clone of this repository, in which artefacts of noise (4,795 training rows, 1,199 to choose on and 5,794 to test on) lie as if the
stages had made them and are committed to DVC. A new `retrain.alpha` then runs retrain, evaluate and report.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import click

from benchmarks import project
from benchmarks.measure import device_option, seconds, tell
from pipeline import presets, store
from pipeline.compute.device import pick
from stages.common import Layout

ROOT = Path(__file__).parent.parent
HELD_OUT = (1199, 5794)
COMMITTED = ("prepare", "train", "saliency", "features")
RUN = ("retrain", "evaluate", "report")


@click.command(help=__doc__)
@click.option("--rows", default=4795, show_default=True)
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option("--answers", default=3, show_default=True, help="New values of α; the median is told.")
@device_option
def main(rows: int, architecture: str, draws: int, answers: int, device: str) -> None:
    on = pick(device)
    with project.folder() as folder:
        layout = Layout(folder / "data")
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        settings = [f"model.architecture={architecture}", f"features.draws={draws}", "dataset.root=data/raw/noise"]
        write_params(folder, settings, 2)
        write_artefacts(layout, rows, architecture, draws)
        dvc(folder, "commit", "--force", *COMMITTED)
        dvc(folder, "repro")  # what else there is, once
        times, parts = [], []
        for number in range(answers):
            write_params(folder, settings, 3 + number)
            times.append(seconds(lambda: dvc(folder, "repro"), on))
            parts.append({stage: json.loads((layout.timings / f"{stage}.json").read_text())["seconds"] for stage in RUN})
    inside = {stage: statistics.median(part[stage] for part in parts) for stage in RUN}
    total = statistics.median(times)
    tell(
        "repro",
        on,
        [
            ("project", f"{rows} training rows, {architecture}, R = {draws}, the paper's solver and 5 seeds"),
            ("dvc repro after a new α", f"{total:.1f} s"),
            *((f"of it inside {stage}", f"{spent:.2f} s") for stage, spent in inside.items()),
        ],
        seconds=total,
        architecture=architecture,
        training_rows=rows,
    )


def write_params(folder: Path, settings: list[str], alpha: int) -> None:
    """The paper's settings for Waterbirds, with this α."""
    presets.write("waterbirds", folder / "params.yaml", [*settings, f"retrain.alpha={alpha}"], replace=True)


def write_artefacts(layout: Layout, rows: int, architecture: str, draws: int) -> None:
    """All outputs of the stages that are not run."""
    raw = layout.data / "raw" / "noise"
    raw.mkdir()
    (raw / "metadata.csv").write_text("")
    project.write_images(layout.images, rows, HELD_OUT)
    project.write_erm(layout.erm, layout.images, architecture)
    store.write_csv(layout.erm / "history.csv", [{"epoch": 1, "train_loss": 1.0, "val_worst": 0.5, "val_mean": 0.5}])
    store.write_json(layout.erm / "metrics.json", {})
    project.write_masks(layout.masks, layout.images, layout.erm)
    with store.open_artefact(layout.images) as images, store.open_artefact(layout.masks) as masks:
        made_from = {"images": images.digest, "masks": masks.digest}
    project.write_features(layout.features, layout.erm, rows, draws, HELD_OUT, made_from)
    for stage in COMMITTED:
        store.write_json(layout.timings / f"{stage}.json", {"seconds": 0, "device": "cpu", "cores": 1, "python": "", "torch": ""})


def dvc(folder: Path, *arguments: str) -> None:
    """DVC as installed beside this Python."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"dvc {' '.join(arguments)}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
