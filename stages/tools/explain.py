"""mac explain: draw where two heads look in an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from pipeline import graph, store
from pipeline.compute.device import pick
from pipeline.compute.progress import log
from pipeline.params.cores import TopK
from pipeline.results.sides import Side, sides_of
from pipeline.tools.explanation import explain
from pipeline.tools.prediction import Pair
from stages.echo import say
from stages.head_option import head_option
from stages.options import data_option, device_option
from stages.outputs import PARAMS, check_output


class _TopK(click.ParamType[float]):
    """K of the core, as in params.yaml: 1 is one pixel, and 1.0 is refused."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            written = int(value) if value.isdecimal() else float(value)
            return TypeAdapter(TopK).validate_python(written, context={"as_written": True})
        except ValidationError as error:
            self.fail(f"{value} {error.errors()[0]['ctx']['error']}", param, ctx)
        except ValueError:
            self.fail(f"{value!r} is no number", param, ctx)


@click.command("explain")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG file to write."
)
@click.option("--target", help="Class that the maps explain.  [default: that of the second head]")
@click.option(
    "--top-k",
    type=_TopK(),
    help="K of the core.  [default: as in masks.h5]",
)
@click.option(
    "--side",
    type=click.Choice(["core", "rest"]),
    help="Whether the core is the K highest pixels, or the rest.  [default: as in masks.h5]",
)
@click.option(
    "--flip/--no-flip",
    default=None,
    help="Whether maps are averaged with those of the mirror image.  [default: as in masks.h5]",
)
@head_option
@data_option
@device_option
def command(
    images: tuple[Path, ...],
    out: Path,
    target: str | None,
    top_k: float | None,
    side: Side | None,
    flip: bool | None,
    other: str,
    data: Path,
    device: str,
) -> None:
    """Draw where ERM and another head look in each of IMAGES, the core, and the probabilities of both."""
    check_output(out, [*images, PARAMS], data)
    project = graph.project(data)
    pair = Pair.load(project, other, pick(device))
    sides: Sequence[Side] = [side or "core"] * len(pair.classes)
    if None in (top_k, side, flip):
        with project.open("masks") as given:
            if top_k is None and given.stated("masks", "size") == "top_k":
                top_k = given.stated("masks", "top_k")
            if side is None:
                sides = sides_of(given, len(pair.classes))
            if flip is None:
                flip = given.stated("masks", "flip")
    if pair.note:
        log.warning("%s", pair.note)
    picture = explain(pair, images, top_k, target, sides, bool(flip))
    with store.replacing(out) as temporary:
        picture.save(temporary, "PNG")
    say(out)
