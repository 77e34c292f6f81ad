"""mac demo: paint the demo dataset (data/raw/dvc.yaml runs it)."""

from pathlib import Path

import click

from pipeline.demo import waterbirds_layout
from stages import PAINTED
from stages.frame import require_current


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the painting."
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Paint only every N-th image of each group; 1 paints all.",
)
def command(folder: Path, seed: int, every: int) -> None:
    """Paint the demo dataset into FOLDER: birds over land and water, in the layout of Waterbirds."""
    where = folder.resolve()
    if where.parts[-3:] == Path(PAINTED).parts:  # DVC would note the code in mac.lock as what painted it
        require_current("demo", where.parents[2])
    waterbirds_layout.write(folder, seed, every=every)
