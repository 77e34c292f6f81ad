"""Stage report: everything -> report.html."""

import webbrowser
from pathlib import Path

import click

from pipeline import params
from pipeline.device import pick
from pipeline.report import Inputs, report
from stages.common import Layout, data_option, device_option, params_option, recorded


@click.command("report")
@params_option
@data_option
@device_option
@click.option("--comparison", is_flag=True, help="With what `dvc repro data/comparison/dvc.yaml` found, into comparison/report.html.")
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
def command(params_path: Path, data: Path, device: str, comparison: bool, show: bool) -> None:
    """Make the page that says whether MaC is worth it on this dataset: report.html."""
    layout, on = Layout(data), pick(device)
    chosen = params.load(params_path)
    folder = layout.comparison if comparison else None
    out = (folder or data) / "report.html"
    inputs = Inputs(
        layout.images, layout.erm, layout.masks, layout.features, layout.retrained, layout.baselines, layout.sweep, layout.timings, folder
    )
    with recorded(layout, "comparison_report" if comparison else "report", on.type):
        report(inputs, out, chosen.report, on)
    click.echo(out)
    if show:
        webbrowser.open(out.resolve().as_uri())
