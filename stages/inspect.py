"""mac inspect: what is in an artefact."""

from pathlib import Path

import click

from pipeline import inspection
from pipeline.errors import MacError


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--image", "row", type=click.IntRange(min=0), help="A row of images.h5 to draw; FILE is a masks.h5.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="PNG file for --image.")
def command(file: Path, row: int | None, out: Path | None) -> None:
    """Say what is in FILE: images.h5, masks.h5, features.h5, a model folder (erm, retrained), or metrics.json.

    For masks.h5 this includes how much of the true foreground and background the masks cover, per group. With --image, write
    original, map, mask, masked and combined of one row as a picture.
    """
    if (row is None) != (out is None):
        raise click.UsageError("--image and --out go together")
    if row is None or out is None:
        click.echo(inspection.describe(file))
        return
    picture = inspection.picture(file, row)
    try:
        picture.save(out, "PNG")
    except OSError as error:
        raise MacError(f"{out}: cannot be written ({error.strerror})") from None
    click.echo(out)
