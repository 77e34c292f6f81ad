"""Stage report: everything -> report.html."""

import webbrowser
from pathlib import Path

import click

from pipeline.report import Inputs, report
from stages.common import Layout, data_option, recorded


@click.command("report")
@data_option
@click.option("--comparison", is_flag=True, help="With what `dvc repro data/comparison/dvc.yaml` found, into comparison/report.html.")
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
def command(data: Path, comparison: bool, show: bool) -> None:
    """Make the page that says whether MaC is worth it on this dataset: report.html."""
    layout = Layout(data)
    folder = layout.comparison if comparison else None
    out = (folder or data) / "report.html"
    inputs = Inputs(
        layout.images, layout.erm, layout.masks, layout.features, layout.examples, layout.retrained, layout.baselines, layout.sweep,
        layout.timings, folder,
    )  # fmt: skip
    with recorded(layout, "comparison_report" if comparison else "report", "cpu"):
        report(inputs, out)
    click.echo(out)
    if show:
        webbrowser.open(out.resolve().as_uri())
