"""mac export: the classifier as one file for use elsewhere."""

from pathlib import Path

import click

from pipeline.export import CARD, FORMATS, Format, export
from stages.common import Layout, data_option


@click.command("export")
@click.option("--format", "how", type=click.Choice(FORMATS), required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--model", type=click.Choice(["mac", "erm"]), default="mac", show_default=True)
@data_option
def command(how: Format, out: Path, model: str, data: Path) -> None:
    """Write the robust classifier as one file, check it against PyTorch, and put a model card beside it."""
    layout = Layout(data)
    checked = export(layout.retrained if model == "mac" else layout.erm, layout.images, layout.metrics, out, how)
    held = f"{checked.images} images: logits within {checked.difference:.1e} of PyTorch's, relative to their terms"
    click.echo(f"{out} ({held}), {out.with_name(CARD)}")
