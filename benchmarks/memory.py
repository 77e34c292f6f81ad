"""Memory: peak resident size of the stages saliency and features at two numbers of rows, each in a process of its own.

Small images (64 px) of a small network, so that tens of thousands of rows pass in a minute; what a row costs would show all the more.
"""

import os
import sys
from pathlib import Path

import click

from benchmarks import project
from benchmarks.measure import device_option, tell
from pipeline import presets
from pipeline.compute.device import pick

RUN = "from stages.cli import main; main()"


@click.command(help=__doc__)
@click.option("--few", default=10_000, show_default=True, help="Rows.")
@click.option("--many", default=40_000, show_default=True, help="Rows.")
@device_option
def main(few: int, many: int, device: str) -> None:
    on = pick(device)
    peaks = {rows: measure(rows, device) for rows in (few, many)}
    ratios = {stage: peaks[many][stage] / peaks[few][stage] for stage in peaks[few]}
    tell(
        "memory",
        on,
        [(f"{stage}, {rows} rows", f"{peaks[rows][stage] / 2**20:.0f} MiB") for stage in ratios for rows in (few, many)],
        ratio=max(ratios.values()),
        **{f"ratio_{stage}": ratio for stage, ratio in ratios.items()},
    )


def measure(rows: int, device: str) -> dict[str, int]:
    """Peak resident bytes of both stages."""
    with project.folder() as folder:
        project.write_images(folder / "images.h5", rows, stored=72, size=64)
        project.write_erm(folder / "erm", folder / "images.h5", "shufflenet_v2_x0_5")
        presets.write("demo", folder / "params.yaml", ["dataset.stored_size=72", "dataset.input_size=64"], replace=True)
        return {stage: peak(folder, stage, device) for stage in ("saliency", "features")}


def peak(folder: Path, stage: str, device: str) -> int:
    """Peak resident bytes of `mac <stage>`."""
    options = [stage, "--params", str(folder / "params.yaml"), "--data", str(folder), "--device", device]
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", RUN, "--quiet", *options], dict(os.environ))
    _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException(f"mac {stage} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
