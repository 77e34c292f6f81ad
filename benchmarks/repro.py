"""Measure the next answer as a user has it: `dvc repro` after a new α, in a project as large as Waterbirds.

The project is a clone of this repository. In it are artefacts of noise, as if the stages had made them, and
they are committed to DVC: 4,795 training rows, 1,199 to choose on and 5,794 to test on. A new `retrain.alpha`
then runs retrain, evaluate and report. The time that is in none of them is DVC's, and that of starting a
process for each: `dvc repro` with nothing to do shows DVC's own part without the notes on what ran.
`mac whatif` says the same accuracies without DVC, and writes nothing.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import click

from benchmarks import project
from benchmarks.measure import device_option, seconds, tell
from pipeline import graph, presets, store
from pipeline.compute.device import pick
from pipeline.project import Project

ROOT = Path(__file__).parent.parent
HELD_OUT = (1199, 5794)  # validation and test images
RAW = "data/raw/noise"
COMMITTED = ("prepare", "train", "saliency", "masks", "originals", "features")
RUN = ("retrain", "evaluate", "report")
WHATIF = ("whatif", "--alpha", "1", "--alpha", "2", "--beta", "30")


@click.command(help=__doc__)
@click.option("--rows", default=4795, show_default=True, help="Training images.")
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--draws", default=4, show_default=True, help="R.")
@click.option("--answers", default=3, show_default=True, help="How often each is timed; the median counts.")
@device_option
def main(rows: int, architecture: str, draws: int, answers: int, device: str) -> None:
    on = pick(device)
    settings = [f"model.architecture={architecture}", f"features.draws={draws}", f"dataset.root={RAW}"]
    with project.folder() as folder:
        noise = graph.project(folder / "data")
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        write_params(folder, settings, 2)
        write_raw(folder / RAW)
        write_artefacts(noise, rows, architecture, draws)
        dvc(folder, "commit", "--force", *COMMITTED)
        dvc(folder, "repro")  # all other stages, once
        times, inside = [], []
        for number in range(answers):
            write_params(folder, settings, 3 + number)
            times.append(seconds(lambda: dvc(folder, "repro"), on))
            inside.append({stage: seconds_inside(noise, stage) for stage in RUN})
        nothing = [seconds(lambda: dvc(folder, "repro"), on) for _ in range(answers)]
        asked = [seconds(lambda: command(folder, "stages", *WHATIF), on) for _ in range(answers)]
    table = [
        ("project", f"{rows} training rows, {architecture}, R = {draws}, the paper's solver and 5 seeds"),
        ("dvc repro after a new α", f"{statistics.median(times):.1f} s"),
    ]
    for stage in RUN:
        spent = statistics.median(each[stage] for each in inside)
        table.append((f"of it inside {stage}", f"{spent:.2f} s"))
    table += [
        ("dvc repro with nothing to do", f"{statistics.median(nothing):.2f} s"),
        (f"mac {' '.join(WHATIF)}", f"{statistics.median(asked):.2f} s"),
    ]
    tell(
        "repro",
        on,
        table,
        seconds=statistics.median(times),
        nothing_to_do=statistics.median(nothing),
        whatif=statistics.median(asked),
        architecture=architecture,
        training_rows=rows,
    )


def write_params(folder: Path, settings: list[str], alpha: int) -> None:
    """Write the paper's settings for Waterbirds, with this α."""
    presets.write("waterbirds", folder / "params.yaml", [*settings, f"retrain.alpha={alpha}"], replace=True)


def write_raw(folder: Path) -> None:
    """Write the folder that stage prepare depends on; nobody reads it."""
    folder.mkdir()
    (folder / "metadata.csv").write_text("")


def write_artefacts(noise: Project, rows: int, architecture: str, draws: int) -> None:
    """Write all that the stages in COMMITTED would make."""
    project.write_images(noise, rows, HELD_OUT)
    project.write_erm(noise, architecture)
    epoch = {"epoch": 1, "train_loss": 1.0, "val_worst": 0.5, "val_mean": 0.5}
    store.write_csv(noise.path("erm") / "history.csv", [epoch])
    store.write_json(noise.path("erm") / "metrics.json", {})
    project.write_maps(noise)
    project.write_masks(noise)
    project.write_originals(noise)
    sources = ("images", "erm", "originals", "masks")
    project.write_features(noise, rows, draws, HELD_OUT, sources=sources)
    timing = {"seconds": 0, "device": "cpu", "cores": 1, "python": "", "torch": ""}
    for stage in COMMITTED:
        store.write_json(timings_file(noise, stage), timing)


def timings_file(noise: Project, stage: str) -> Path:
    """Where a stage says how long it took."""
    return noise.data / "timings" / f"{stage}.json"


def seconds_inside(noise: Project, stage: str) -> float:
    """What a stage says that it took, without the start of its process."""
    timing = store.read_json(timings_file(noise, stage), "run 'dvc repro'")
    return float(timing["seconds"])


def dvc(folder: Path, *arguments: str) -> None:
    """Run DVC as it is installed beside this Python.

    Raises:
        ClickException: it failed.
    """
    command(folder, "dvc", *arguments)


def command(folder: Path, module: str, *arguments: str) -> None:
    """Run a module's command in the project, with its code.

    Raises:
        ClickException: it failed.
    """
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(folder)}
    whole = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{module} {' '.join(arguments)}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
