"""mac predict: classes and probabilities of image files, by ERM and by MaC."""

import json
from pathlib import Path
from typing import Any

import click

from pipeline.compute.device import pick
from pipeline.compute.progress import log, track
from pipeline.errors import MacError
from pipeline.store import write_csv
from pipeline.tools import prediction
from stages.common import Layout, data_option, device_option

HEADS = {"ERM": "erm", "MaC": "mac"}


@click.command("predict")
@click.argument("paths", nargs=-1, required=True)
@data_option
@device_option
@click.option("--csv", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write a table with all probabilities to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON per file.")
def command(paths: tuple[str, ...], data: Path, device: str, out: Path | None, as_json: bool) -> None:
    """Say what ERM and MaC see in PATHS: image files, folders, or patterns.

    Files that cannot be read are listed, and the rest goes on.
    """
    files = prediction.listed(paths)
    layout = Layout(data)
    pair = prediction.Pair.load(layout.erm, layout.retrained, pick(device))
    rows, unreadable = [], 0
    width = max(len(str(file)) for file in files)
    for found in track(prediction.predict(pair, files), "predict", len(files), "images"):
        row = _row(found, pair.classes)
        rows.append(row)
        if found.probability is None:
            unreadable += 1
            log.warning("%s", found.error)
        if as_json:
            click.echo(json.dumps(row, ensure_ascii=False))
        elif "error" not in row and out is None:
            said = (f"{name} {row[key]['class']} {100 * row[key]['probability'][row[key]['class']]:.1f} %" for name, key in HEADS.items())
            click.echo(f"{found.path!s:<{width}}  {'   '.join(said)}")
    if out is not None:
        write_csv(out, [_flat(row, pair.classes) for row in rows])
        click.echo(out)
    if unreadable:
        log.warning("%d of %d files cannot be read", unreadable, len(files))
    if unreadable == len(files):
        raise MacError("none of the files can be read as an image")


def _row(found: prediction.Prediction, classes: list[str]) -> dict[str, Any]:
    if found.probability is None:
        return {"path": str(found.path), "error": found.error}
    row: dict[str, Any] = {"path": str(found.path)}
    for key, probability in zip(HEADS.values(), found.probability.tolist(), strict=True):
        seen = classes[max(range(len(classes)), key=probability.__getitem__)]
        row[key] = {"class": seen, "probability": dict(zip(classes, probability, strict=True))}
    return row


def _flat(row: dict[str, Any], classes: list[str]) -> dict[str, object]:
    """The same for a table; empty where a file cannot be read."""
    heads = {key: row.get(key, {"class": "", "probability": dict.fromkeys(classes, "")}) for key in HEADS.values()}
    seen = {key: head["class"] for key, head in heads.items()}
    probabilities = {f"{key}: {name}": value for key, head in heads.items() for name, value in head["probability"].items()}
    return {"path": row["path"], **seen, **probabilities, "error": row.get("error", "")}
