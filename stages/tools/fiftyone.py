"""mac fiftyone: make a dataset of FiftyOne of all images, with masks, maps and answers."""

from pathlib import Path

import click

from pipeline import graph
from pipeline.tools.fiftyone_dataset import export
from stages.echo import say
from stages.options import data_option
from stages.outputs import check_output


@click.command("fiftyone")
@click.option("--name", default="mac", show_default=True, help="Name of the dataset.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pictures, which must stay there.  [default: fiftyone/<name> in the data folder]",
)
@data_option
def command(name: str, out: Path | None, data: Path) -> None:
    """Make a dataset of FiftyOne.

    It has every image with its split and group, the answers of ERM and MaC, the core, the map, and the
    features. Then `fiftyone app launch NAME` shows it.
    """
    folder = data / "fiftyone" / name if out is None else out
    check_output(folder, [], data)
    say(f"{name} ({export(graph.project(data), folder, name)} images, pictures in {folder})")
    say(f"look at it: fiftyone app launch {name}")
