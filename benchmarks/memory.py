"""Measure memory: the most that the stages from saliency to features use, at two numbers of rows.

Each stage runs in a process of its own. Images (64 px) and network are small, so that tens of thousands of
rows take a minute, and what one row costs is seen all the better.
"""

import os
import sys
from pathlib import Path

import click

from benchmarks import project
from benchmarks.measure import device_option, tell
from pipeline import graph, presets
from pipeline.compute.device import pick

RUN = "from stages.cli import main; main()"
STAGES = ("saliency", "masks", "originals", "features")
STORED, SIZE = 72, 64  # sides of the stored images and of the network's input, pixels


@click.command(help=__doc__)
@click.option("--few", default=10_000, show_default=True, help="Rows.")
@click.option("--many", default=40_000, show_default=True, help="Rows.")
@device_option
def main(few: int, many: int, device: str) -> None:
    on = pick(device)
    peaks = {rows: measure(rows, device) for rows in (few, many)}
    ratios = {stage: peaks[many][stage] / peaks[few][stage] for stage in peaks[few]}
    rows = []
    for stage in ratios:
        for count in (few, many):
            rows.append((f"{stage}, {count} rows", f"{peaks[count][stage] / 2**20:.0f} MiB"))
    by_stage = {f"ratio_{stage}": ratio for stage, ratio in ratios.items()}
    tell("memory", on, rows, ratio=max(ratios.values()), **by_stage)


def measure(rows: int, device: str) -> dict[str, int]:
    """The most memory of each stage, in bytes."""
    settings = [f"dataset.stored_size={STORED}", f"dataset.input_size={SIZE}"]
    with project.folder() as folder:
        noise = graph.project(folder)
        project.write_images(noise, rows, stored=STORED)
        project.write_erm(noise, "shufflenet_v2_x0_5", size=SIZE)
        presets.write("demo", folder / "params.yaml", settings, replace=True)
        return {stage: peak(folder, stage, device) for stage in STAGES}


def peak(folder: Path, stage: str, device: str) -> int:
    """The most resident memory of `mac <stage>`, in bytes."""
    options = [stage, "--params", str(folder / "params.yaml"), "--data", str(folder), "--device", device]
    command = [sys.executable, "-c", RUN, "--quiet", *options]
    process = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException(f"mac {stage} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
