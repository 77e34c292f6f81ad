"""mac export: the classifier as one file for use elsewhere."""

from pathlib import Path
from typing import Literal

import click

from pipeline.tools.export import CARD, FORMATS, Format, Sources, export
from stages.common import Layout, data_option


@click.command("export")
@click.option("--format", "how", type=click.Choice(FORMATS), required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--model", type=click.Choice(["mac", "erm"]), default="mac", show_default=True)
@data_option
def command(how: Format, out: Path, model: Literal["mac", "erm"], data: Path) -> None:
    """Write the robust classifier as one file, check it against PyTorch, and put a model card beside it."""
    layout = Layout(data)
    checked = export(model, Sources(layout.images, layout.features, layout.erm, layout.retrained), out, how)
    held = f"{checked.images} images: logits within {checked.difference:.1e} of PyTorch's, relative to their terms"
    click.echo(f"{out} ({held}), {out.with_name(CARD)}")
