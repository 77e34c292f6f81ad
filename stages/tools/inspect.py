"""mac inspect: show what is in an artefact."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from pipeline import store
from pipeline.errors import MacError
from pipeline.tools import browse, inspection
from stages.echo import say, say_json
from stages.outputs import PARAMS, check_output


class _Grid(click.ParamType[tuple[int, int]]):
    name = "COLUMNSxROWS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", value)
        if not found:
            self.fail(f"{value!r} is not such as 5x4", param, ctx)
        return int(found[1]), int(found[2])


_OUT_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--image",
    "row",
    type=click.IntRange(min=0),
    help="Draw this row of images.h5 with its map, core, and masked and combined views.",
)
@click.option("--sort", type=click.Choice(list(browse.SORTS)), help="List the images, sorted by this value.")
@click.option("--group", help="Only images of this group.")
@click.option("--misclassified", is_flag=True, help="Only images that ERM gets wrong.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Another masks.h5 of the same images, to compute the overlap (IoU) of each mask.",
)
@click.option("--grid", type=_Grid(), help="Draw the first images with their cores, such as 5x4.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Images to list.")
@click.option("--out", type=_OUT_FILE, help="PNG file for --image or --grid.")
@click.option("--csv", "table_file", type=_OUT_FILE, help="Write all images, sorted, to this CSV file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Path, row: int | None, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Show what is in FILE.

    FILE is images.h5, maps.h5, masks.h5, originals.h5, features.h5, examples.h5, a model folder (erm,
    retrained, baselines), or a metrics.json.

    For masks.h5, this includes how much of the true foreground and background the masks cover, by group; it
    needs images.h5 and erm/ in the same folder. Most options are for masks.h5: they list and draw its images.
    """
    listing = _Listing(**chosen)
    read = [each for each in (file, listing.against) if each]
    for written in (out, listing.table_file):
        check_output(written, [*read, PARAMS], file.parent)
    if (row is not None or listing.grid is not None) != (out is not None):
        raise click.UsageError("--out names the picture of --image or --grid, and they need it")
    if row is not None and out is not None:
        _save(inspection.picture(file, row), out)
    elif listing.is_wanted:
        _list(file, listing, out, as_json)
    elif as_json:
        say_json(inspection.as_dict(file))
    else:
        say(inspection.describe(file))


@dataclass(frozen=True)
class _Listing:
    """The options that choose images of masks.h5, and what to do with them."""

    sort: str | None
    group: str | None
    misclassified: bool
    against: Path | None
    grid: tuple[int, int] | None
    limit: int
    table_file: Path | None

    @property
    def is_wanted(self) -> bool:
        """Whether any option asks for a list or a grid."""
        return bool(
            self.sort or self.group or self.misclassified or self.against or self.grid or self.table_file
        )

    @property
    def by(self) -> str:
        """What the images are sorted by."""
        return self.sort or ("iou" if self.against else "confidence")


def _list(file: Path, listing: _Listing, out: Path | None, as_json: bool) -> None:
    name = listing.by
    if name == "iou" and listing.against is None:
        raise click.UsageError("--sort iou needs --against, another masks.h5")
    coverage = name == "coverage" or listing.table_file is not None or as_json
    table = browse.browse(file, listing.against, coverage)
    if listing.group is not None:
        if listing.group not in table.group:
            there = ", ".join(np.unique(table.group))
            raise MacError(f"--group {listing.group}: no image is of it; there are {there}")
        table = table.take(np.flatnonzero(table.group == listing.group))
    if listing.misclassified:
        table = table.take(np.flatnonzero(~table.right))
    table = table.by(name)
    if listing.table_file is not None:
        store.write_csv(listing.table_file, browse.as_rows(table), [*browse.COLUMNS, *browse.SORTS])
        say(listing.table_file)
    if listing.grid is not None and out is not None:
        _save(browse.as_grid(file, table, name, *listing.grid), out)
    if as_json:
        say_json(browse.as_rows(table))
    elif listing.table_file is None and listing.grid is None:
        say(browse.as_text(table, name, listing.limit))


def _save(picture: Image.Image, out: Path) -> None:
    with store.replacing(out) as temporary:
        picture.save(temporary, "PNG")
    say(out)
