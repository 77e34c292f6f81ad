"""Prepare: the whole stage, JPEG files to images.h5, against the bare loop of decoding and resizing in one process, times the cores."""

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from benchmarks import project
from benchmarks.measure import medians, repeats_option, tell
from pipeline.compute.machine import usable_cores
from pipeline.params import DatasetParams
from pipeline.prepare import prepare


@click.command(help=__doc__)
@click.option("--rows", default=1024, show_default=True)
@click.option("--root", type=click.Path(path_type=Path), help="JPEG files in a folder a class, in place of made ones.")
@repeats_option
def main(rows: int, root: Path | None, repeats: int) -> None:
    with project.folder() as folder:
        params = DatasetParams(
            name="folder", root=str(root or folder / "raw"), options={"metadata": None}, stored_size=256, to_stored="squash",
            input_size=224, to_input="center_crop", on_error="fail",
        )  # fmt: skip
        if root is None:
            write_jpegs(folder / "raw", rows)
        files = sorted(Path(params.root).rglob("*.jpg"))
        for file in files:
            file.read_bytes()  # into the page cache, for both

        def bare() -> None:
            for file in files:
                with Image.open(file) as image:
                    np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR))

        times = medians(
            {"stage": lambda: prepare(params, folder / "images.h5", folder / "scratch"), "bare": bare}, torch.device("cpu"), repeats
        )
    cores = usable_cores()
    rate, loop = len(files) / times["stage"], len(files) / times["bare"]
    tell(
        "prepare",
        torch.device("cpu"),
        [
            ("images", f"{len(files)} JPEG files to 256 x 256"),
            ("the stage, files to images.h5", f"{rate:.0f} images/s"),
            (f"bare loop in one process, times {cores} cores", f"{loop * cores:.0f} images/s"),
        ],
        ratio=rate / (loop * cores),
        images_per_second=rate,
        cores=cores,
    )


def write_jpegs(root: Path, count: int) -> None:
    """Pictures of 500 x 375 pixels as cameras have them: smooth, with some noise."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(coarse) + rng.normal(0, 6, (375, 500, 3)), 0, 255).astype(np.uint8)
        file = root / f"class{number % 2}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(file, quality=90)


if __name__ == "__main__":
    main()
