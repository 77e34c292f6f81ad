"""mac inspect: what is in an artefact."""

import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np

from pipeline import store
from pipeline.errors import MacError
from pipeline.tools import browse, inspection


class _Grid(click.ParamType[tuple[int, int]]):
    name = "COLUMNSxROWS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", value)
        if not found:
            self.fail(f"{value!r} is not such as 5x4", param, ctx)
        return int(found[1]), int(found[2])


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--image", "row", type=click.IntRange(min=0), help="A row of images.h5 to draw with all that becomes of it.")
@click.option("--sort", type=click.Choice(list(browse.SORTS)), help="List the images by this.")
@click.option("--group", help="Only images of this group.")
@click.option("--misclassified", is_flag=True, help="Only images that ERM gets wrong.")
@click.option("--against", type=click.Path(path_type=Path), help="Another masks.h5 of the same images: overlap (IoU) of each mask.")
@click.option("--grid", type=_Grid(), help="Draw the first images with their cores, such as 5x4.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Images to list.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="PNG file for --image or --grid.")
@click.option("--csv", "table_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all images, as sorted, to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    file: Path, row: int | None, sort: str | None, group: str | None, misclassified: bool, against: Path | None,
    grid: tuple[int, int] | None, limit: int, out: Path | None, table_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what is in FILE: images.h5, masks.h5, features.h5, examples.h5, a model folder (erm, retrained), or metrics.json.

    For masks.h5 this includes how much of the true foreground and background the masks cover, per group; the other options list and
    draw its images.
    """
    if (row is not None or grid is not None) != (out is not None):
        raise click.UsageError("--out names the picture of --image or --grid, and they need it")
    if row is not None and out is not None:
        _save(inspection.picture(file, row), out)
        return
    if not (sort or group or misclassified or against or grid or table_file):
        if as_json:
            click.echo(json.dumps(inspection.as_dict(file), ensure_ascii=False))
        else:
            click.echo(inspection.describe(file))
        return
    name = sort or ("iou" if against else "confidence")
    table = browse.browse(file, against, coverage=name == "coverage" or table_file is not None or as_json)
    if group is not None:
        if group not in table.group:
            raise MacError(f"--group {group}: no image is of it; there are {', '.join(np.unique(table.group))}")
        table = table.take(np.flatnonzero(table.group == group))
    if misclassified:
        table = table.take(np.flatnonzero(~table.right))
    table = table.by(name)
    if table_file is not None:
        store.write_csv(table_file, browse.as_rows(table), [*browse.COLUMNS, *browse.SORTS])
        click.echo(table_file)
    if grid is not None and out is not None:
        _save(browse.as_grid(file, table, name, *grid), out)
    if as_json:
        click.echo(json.dumps(browse.as_rows(table), ensure_ascii=False))
    elif table_file is None and grid is None:
        click.echo(browse.as_text(table, name, limit))


def _save(picture: Any, out: Path) -> None:
    with store.replacing(out) as temporary:
        picture.save(temporary, "PNG")
    click.echo(out)
