"""Measure what has a goal, and write RESULTS.md: `python -m benchmarks [--device cuda]`, or `make bench`.

The page has a section for each machine, with a table of goals and figures. What else is on it stays as it is.
"""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from benchmarks.measure import describe, device_option
from pipeline.compute.device import pick
from pipeline.store import write_text

FILE = Path(__file__).parent / "RESULTS.md"
WITHOUT_DEVICE = ("prepare", "scaling", "spread", "streaming")
PACKAGES = ("torch", "torchvision", "numpy", "h5py", "pillow", "grad-cam", "dask", "dvc")


class Goal(NamedTuple):
    """A line of the page's table.

    Attributes:
        question: what is measured.
        key: of the answer in the program's JSON.
        bound: `≥` or `≤`, and a number.
    """

    question: str
    key: str
    bound: str

    def met(self, figure: float) -> str:
        """A sign for whether the figure is within the bound."""
        sign, number = self.bound.split()
        return "✓" if (figure >= float(number) if sign == "≥" else figure <= float(number)) else "✗"


@dataclass(frozen=True)
class Run:
    """A program with its options, and the goals that it answers."""

    command: str
    goals: tuple[Goal, ...]


def _maps(bound: str) -> Goal:
    return Goal("maps and masks, against grad-cam and argpartition", "ratio", bound)


def _features(bound: str) -> Goal:
    return Goal("all views through the stages, against the network's bare forward", "ratio", bound)


def _networks_on_gpu() -> list[Run]:
    """The runs on a GPU of the programs that take networks: in both precisions, of two networks."""
    epoch = Goal("an epoch with augmentation, against the bare step", "ratio", "≥ 0.85")
    programs = {"saliency --images 2048": _maps("≥ 15"), "features --rows 4096": _features("≥ 0.8")}
    programs["train --rows 4096"] = epoch
    runs = []
    for precision in ("float32", "bfloat16"):
        for program, goal in programs.items():
            if program.startswith("saliency") and precision == "bfloat16":
                continue  # the package that it is held against has float32 alone
            for network in ("resnet50", "mobilenet_v2"):
                runs.append(Run(f"{program} --architecture {network} --precision {precision}", (goal,)))
    return runs


_PREPARE = Goal("decode and resize, against the bare loop × cores", "ratio", "≥ 0.85")
_RESIDENT = "in times of from memory"
_PEAK = Goal("peak memory of retraining but for the heads, GiB", "retrain_streamed_but_heads_gib", "≤ 2")
_NEW_K = Goal("a new K, against everything after train", "ratio", "≥ 1.5")
_REPRO = (
    Goal("`dvc repro` after a new α, seconds", "seconds", "≤ 6"),
    Goal("`mac whatif`, seconds", "whatif", "≤ 2.5"),
)
# What is run on a CPU, and on a GPU. On two cores that do nothing else, those of a CPU take 20 minutes.
RUNS: dict[str, list[Run]] = {
    "cpu": [
        Run("prepare --repeats 3", (_PREPARE,)),
        Run("streaming --sides streamed --stages retrain", (_PEAK,)),
        Run(
            "streaming --rows 20000",
            (
                Goal(f"retraining from the file, {_RESIDENT}", "retrain_ratio", "≤ 1.3"),
                Goal(f"sweep of 27 × 25 from the file, {_RESIDENT}", "sweep_ratio", "≤ 1.3"),
            ),
        ),
        Run("masks --repeats 2", (_NEW_K,)),
        Run("repro", _REPRO),
        Run("saliency --images 32 --repeats 3", (_maps("≥ 5"),)),
        Run("saliency --architecture mobilenet_v2 --images 64 --repeats 3", (_maps("≥ 8"),)),
        Run("features --rows 64 --draws 2 --repeats 1", (_features("≥ 0.92"),)),
        Run("features --architecture mobilenet_v2 --draws 2 --repeats 3", (_features("≥ 0.92"),)),
        Run(
            "features --architecture timm/vit_small_patch16_224 --rows 128 --draws 2 --repeats 1",
            (_features("≥ 0.92"),),
        ),
        Run(
            "retrain --repeats 1",
            (Goal("90 heads at once, against nn.Linear and Adam 90 times", "ratio", "≥ 30"),),
        ),
        Run("scaling --repeats 1", (Goal("saliency with 2 workers, in times of 1", "ratio", "≥ 1.9"),)),
        Run("spread --rows 10000", (Goal("L-BFGS with 2 workers, in times of 1", "ratio", "≥ 1.6"),)),
    ],
    "cuda": [
        *_networks_on_gpu(),
        Run("masks --architecture resnet50 --rows 2048", (_NEW_K,)),
        Run(
            "retrain",
            (
                Goal("90 heads at once, against nn.Linear and Adam 90 times", "ratio", "≥ 50"),
                Goal("90 heads, in times of one", "heads_to_one", "≤ 2"),
            ),
        ),
        Run(
            "online --rows 4096 --batches 20",
            (
                Goal("first answer, against the online way", "ratio", "≥ 5"),
                Goal("next answer (α or β), against the online way", "ratio_next", "≥ 300"),
                Goal("sweep of 18 × 5, against the online way 90 times", "ratio_sweep", "≥ 5000"),
            ),
        ),
        Run("repro", _REPRO),
        Run("prepare --rows 8192", (_PREPARE,)),
        Run("memory", (Goal("peak memory at 40,000 rows, in times of 10,000", "ratio", "≤ 1.1"),)),
    ],
}
MILLION = Run(
    "streaming --rows 1000000 --draws 1 --sides streamed --stages retrain",
    (Goal("peak memory of retraining on a million rows, GiB", "retrain_streamed_gib", "≤ 24"),),
)


@click.command(help=__doc__)
@device_option
@click.option("--only", multiple=True, help="Run this program alone; may be given again for another one.")
@click.option(
    "--million", is_flag=True, help="Also retrain on a million rows: 25 GB of disk, 10 minutes and more."
)
def main(device: str, only: tuple[str, ...], million: bool) -> None:
    on = pick(device)
    rows: list[str] = []
    outputs, device_name, failed = [], describe(on), []
    for run in [*RUNS[on.type], *([MILLION] if million else [])]:
        program, *options = run.command.split()
        if only and program not in only:
            continue
        shown = f"python -m benchmarks.{run.command}"
        click.echo(f"$ {shown}", err=True)
        arguments = [] if program in WITHOUT_DEVICE else ["--device", device]
        command = [sys.executable, "-m", f"benchmarks.{program}", *options, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(shown)
            rows += [_row(goal, {}) for goal in run.goals]
            continue
        click.echo(done.stdout)
        *table, last = done.stdout.strip().splitlines()
        outputs.append(f"$ {shown}\n" + "\n".join(table))
        rows += [_row(goal, json.loads(last)) for goal in run.goals]
        # After every program, so that what was measured is kept whatever comes next.
        old = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
        write_text(FILE, _page(old, _section(device_name, rows, outputs)))
    click.echo(f"wrote {FILE}")
    if failed:
        raise click.ClickException(f"these failed: {'; '.join(failed)}")


def _row(goal: Goal, figures: Mapping[str, Any]) -> str:
    """A line of the table."""
    of = ", ".join(figures[key] for key in ("architecture", "precision") if key in figures)
    if goal.key not in figures:
        return f"| {goal.question} | {of} | not measured | {goal.bound} | |"
    figure = figures[goal.key]
    return f"| {goal.question} | {of} | **{figure:.4g}** | {goal.bound} | {goal.met(figure)} |"


def _section(device: str, rows: Sequence[str], outputs: Sequence[str]) -> str:
    """The section of one machine.

    Args:
        device: in words.
        rows: of the table.
        outputs: what each program printed.
    """
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    lines = [
        f"## {device}, {_processor()}",
        "",
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| question | network | found | goal | met |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "```",
        "\n\n".join(outputs),
        "```",
        "",
    ]
    return "\n".join(lines)


def _processor() -> str:
    """The CPU, and the instructions that its forward passes can use."""
    name = platform.processor()
    if sys.platform == "linux":
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = found[1] if found else name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _page(old: str, section: str) -> str:
    """The old page with this section in place of the one with the same heading, or as the first one."""
    head, *sections = re.split(r"(?m)^(?=## )", old)
    heading = section.partition("\n")[0]
    kept = [each for each in sections if each.partition("\n")[0] != heading]
    return "".join([head, section + "\n", *kept])


if __name__ == "__main__":
    main()
