"""mac predict: predict classes and probabilities of image files, with ERM's head and another one."""

from pathlib import Path

import click

from pipeline import graph
from pipeline.compute.device import pick
from pipeline.compute.progress import log, track
from pipeline.errors import MacError, printable
from pipeline.store import write_csv
from pipeline.tools.prediction import Pair, Prediction, listed, predict
from stages.echo import say, say_json
from stages.head_option import head_option
from stages.options import data_option, device_option
from stages.outputs import PARAMS, check_output


@click.command("predict")
@click.argument("paths", nargs=-1, required=True)
@head_option
@data_option
@device_option
@click.option(
    "--csv",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a table with all probabilities to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each file.")
def command(
    paths: tuple[str, ...], other: str, data: Path, device: str, out: Path | None, as_json: bool
) -> None:
    """Predict the classes of images with ERM and another head. PATHS are image files, folders, or patterns.

    Files that cannot be read are listed; the others are still predicted.
    """
    files = listed(paths)
    check_output(out, [*files, PARAMS], data)
    pair = Pair.load(graph.project(data), other, pick(device))
    if pair.note:
        log.warning("%s", pair.note)
    cells, unreadable = [], 0
    width = max(len(printable(str(file))) for file in files)
    for found in track(predict(pair, files), "predict", len(files), "images"):
        if out is not None:
            cells.append(found.as_cells(pair))
        if found.probability is None:
            unreadable += 1
            log.warning("%s", found.error)
        if as_json:
            say_json(found.as_row(pair))
        elif found.probability is not None and out is None:
            say(f"{printable(str(found.path)):<{width}}  {printable(_said(found, pair))}")
    if out is not None:
        write_csv(out, cells)
        say(out)
    if unreadable:
        log.warning("%d of %d files cannot be read", unreadable, len(files))
    if unreadable == len(files):
        raise MacError("none of the files can be read as an image")


def _said(found: Prediction, pair: Pair) -> str:
    """The class that each head predicts, with its probability."""
    row, said = found.as_row(pair), []
    for head in pair.heads:
        seen = row[head.name]["class"]
        said.append(f"{head.title} {seen} {100 * row[head.name]['probability'][seen]:.1f} %")
    return "   ".join(said)
