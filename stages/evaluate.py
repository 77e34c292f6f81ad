"""Stage evaluate: the test metrics of ERM and MaC."""

from pathlib import Path

import click

from pipeline.evaluate import evaluate
from stages.common import Layout, data_option, recorded


@click.command("evaluate")
@data_option
def command(data: Path) -> None:
    """Compare ERM and MaC on the test split: a table here, metrics.json for DVC."""
    layout = Layout(data)
    with recorded(layout, "evaluate", "cpu"):
        text = evaluate(layout.images, layout.features, layout.erm, layout.retrained, layout.metrics, layout.plots)
    click.echo(text)
