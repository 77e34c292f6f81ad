"""Run every benchmark here and write RESULTS.md: `python -m benchmarks [--device cuda]`, or `make bench`.

The page has a section for each machine. What else is on it stays as it is.
"""

import json
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import torch

from benchmarks.measure import describe, device_option
from pipeline.compute.device import pick
from pipeline.store import write_text

FILE = Path(__file__).parent / "RESULTS.md"
WITHOUT_DEVICE = ("prepare", "scaling", "streaming")
PACKAGES = ("torch", "torchvision", "numpy", "h5py", "pillow", "grad-cam", "dask", "dvc")


def _networks_on_gpu() -> list[list[str]]:
    """The runs on a GPU of the programs that take networks: in both precisions, of two networks."""
    sizes = {"saliency": ("--images", "2048"), "features": ("--rows", "4096"), "train": ("--rows", "4096")}
    runs = []
    for precision in ("float32", "bfloat16"):
        for name, size in sizes.items():
            if (name, precision) == ("saliency", "bfloat16"):
                continue  # the package that it is held against has float32 alone
            for network in ("resnet50", "mobilenet_v2"):
                runs.append([name, "--architecture", network, *size, "--precision", precision])
    return runs


# What is run on a CPU, and on a GPU: a program and its options each.
RUNS: dict[str, list[list[str]]] = {
    "cpu": [
        ["saliency", "--images", "64", "--repeats", "3"],
        ["saliency", "--architecture", "mobilenet_v2", "--repeats", "3"],
        ["features", "--rows", "64", "--draws", "2", "--repeats", "1"],
        ["features", "--architecture", "mobilenet_v2", "--draws", "2", "--repeats", "3"],
        ["masks", "--repeats", "3"],
        ["train", "--rows", "64", "--repeats", "3"],
        ["train", "--architecture", "mobilenet_v2", "--repeats", "3"],
        ["retrain", "--repeats", "3"],
        ["online", "--architecture", "mobilenet_v2", "--rows", "128", "--batches", "2", "--repeats", "3"],
        ["repro"],
        ["prepare", "--repeats", "3"],
        ["scaling", "--repeats", "3"],
        ["memory"],
        ["streaming", "--rows", "20000"],
    ],
    "cuda": [
        *_networks_on_gpu(),
        ["masks", "--architecture", "resnet50", "--rows", "2048"],
        ["retrain"],
        ["online", "--rows", "4096", "--batches", "20"],
        ["repro"],
        ["prepare", "--rows", "8192"],
        ["memory"],
    ],
}
# What the page's table says of a program: a question, the key of its answer in the program's JSON, and the
# goals on a CPU and on a GPU.
GOALS: dict[str, list[tuple[str, str, tuple[str, str]]]] = {
    "saliency": [("maps and masks, against grad-cam and argpartition", "ratio", ("≥ 6", "≥ 15"))],
    "features": [
        ("all views through the stages, against the network's bare forward", "ratio", ("≥ 0.90", "≥ 0.80"))
    ],
    "masks": [("a new K, against everything after train", "ratio", ("≥ 1.5", "≥ 1.5"))],
    "train": [("an epoch with augmentation, against the bare step", "ratio", ("≥ 0.90", "≥ 0.85"))],
    "retrain": [
        ("90 heads at once, against nn.Linear and Adam 90 times", "ratio", ("≥ 20", "≥ 50")),
        ("90 heads, in times of one", "heads_to_one", ("≤ 10", "≤ 2")),
    ],
    "online": [
        ("first answer, against the online way", "ratio", ("≥ 5", "≥ 5")),
        ("next answer (α or β), against the online way", "ratio_next", ("≥ 300", "≥ 300")),
        ("sweep of 18 × 5, against the online way 90 times", "ratio_sweep", ("≥ 5000", "≥ 5000")),
    ],
    "repro": [("`dvc repro` after a new α, seconds", "seconds", ("< 12", "< 12"))],
    "prepare": [("decode and resize, against the bare loop × cores", "ratio", ("≥ 0.85", "≥ 0.85"))],
    "scaling": [
        ("saliency with 2 workers, in times of 1", "ratio", ("2", "2")),
        ("the engine's part of a block of 512 rows", "engine_share", ("< 0.02", "< 0.02")),
    ],
    "streaming": [
        ("retraining from the file, in times of from memory", "retrain_ratio", ("≤ 1.3", "≤ 1.3")),
        ("sweep of 27 × 25 from the file, in times of from memory", "sweep_ratio", ("≤ 1.3", "≤ 1.3")),
    ],
    "memory": [("peak memory at 40,000 rows, in times of 10,000", "ratio", ("≤ 1.1", "≤ 1.1"))],
}


@click.command(help=__doc__)
@device_option
@click.option("--only", multiple=True, help="Run this program alone; may be given again for another one.")
def main(device: str, only: tuple[str, ...]) -> None:
    on = pick(device)
    rows, outputs, device_name, failed = [], [], describe(on), []
    for program, *options in RUNS[on.type]:
        if only and program not in only:
            continue
        shown = f"python -m benchmarks.{' '.join([program, *options])}"
        click.echo(f"$ {shown}", err=True)
        arguments = [] if program in WITHOUT_DEVICE else ["--device", device]
        command = [sys.executable, "-m", f"benchmarks.{program}", *options, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(shown)
            continue
        click.echo(done.stdout)
        *table, last = done.stdout.strip().splitlines()
        figures = json.loads(last)
        outputs.append(f"$ {shown}\n" + "\n".join(table))
        network = figures.get("architecture", "")
        if "precision" in figures:
            network += f", {figures['precision']}"
        for question, key, goals in GOALS[program]:
            rows.append((question, network, figures[key], goals[on.type == "cuda"]))
        # After every program, so that what was measured is kept whatever comes next.
        old = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
        write_text(FILE, _page(old, _section(device_name, rows, outputs)))
    click.echo(f"wrote {FILE}")
    if failed:
        raise click.ClickException(f"these failed: {'; '.join(failed)}")


def _section(device: str, rows: list[tuple[str, str, float, str]], outputs: list[str]) -> str:
    """The section of one machine.

    Args:
        device: in words.
        rows: of the table: question, network, figure and goal.
        outputs: what each program printed.
    """
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    table = [
        f"| {question} | {network} | **{figure:.4g}** | {goal} |" for question, network, figure, goal in rows
    ]
    lines = [
        f"## {device}, {_processor()}",
        "",
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| question | network | found | goal |",
        "|---|---|---|---|",
        *table,
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
