"""mac export: write a classifier as one file for other programs."""

from pathlib import Path

import click

from pipeline import graph
from pipeline.tools.export import CARD, FORMATS, Format, export
from pipeline.tools.heads import MAC, NAMES
from stages.echo import say
from stages.options import data_option
from stages.outputs import PARAMS, check_output


@click.command("export")
@click.option("--format", "how", type=click.Choice(FORMATS), required=True, help="Format of the file.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option(
    "--model",
    type=click.Choice(NAMES),
    default=MAC,
    show_default=True,
    help="MaC, ERM, or a method of data/baselines.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Divide the logits by the temperature that fits the validation split; no answer changes.",
)
@data_option
def command(how: Format, out: Path, model: str, calibrate: bool, data: Path) -> None:
    """Write a classifier as one file, compare it with PyTorch, and put a model card beside it."""
    check_output(out, [PARAMS], data)
    checked = export(graph.project(data), model, out, how, calibrate)
    difference = f"logits within {checked.difference:.1e} of PyTorch's, relative to their terms"
    scaled = "" if checked.temperature is None else f"; temperature {checked.temperature:.3g}"
    say(f"{out} ({checked.images} images: {difference}{scaled}), {out.with_name(CARD)}")
