"""What choosing without group labels costs: every method chosen by every criterion, on the same ERM runs.

    python -m benchmarks.selection WATERBIRDS WEIGHTS --seeds 0,1,2 --work FOLDER --out selection.csv

The runs of ERM are kept in the work folder, so a run that was cut off can go on. The criteria that see no
groups get a validation split cut to the correlation of the training split, as one would have it without group
labels; `groups` gets the whole split, and the cut one too (`groups, cut`). The test split chooses nothing.
"""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.waterbirds import CPU, fit_params, mac_heads, made, parameters
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.methods import METHODS
from pipeline.metrics import Grouping
from pipeline.params.fit import FitParams
from pipeline.project import Opened

# Without eiil: Waterbirds has two classes, so it is error_groups.
CRITERIA = ("groups", "groups, cut", "soft_errors", "error_groups", "worst_class")

Row = dict[str, Any]


def cut(given: Opened, seed: int) -> NDArray[np.int64]:
    """Positions of validation rows, with the training split's share of the groups in each class."""
    training, validation = given.grouping("train"), given.grouping("val")
    members = [np.flatnonzero(validation.index == group) for group in range(len(validation.names))]
    attributes = len(given.groups.attributes)
    rng, found = np.random.default_rng(seed), []
    for label in range(len(given.groups.classes)):
        groups = range(label * attributes, (label + 1) * attributes)
        share = np.array([training.count[group] for group in groups], float)
        size = min(len(members[group]) / part for group, part in zip(groups, share, strict=True) if part)
        for group, part in zip(groups, share, strict=True):
            found.append(rng.choice(members[group], max(1, round(size * part)), replace=False))
    return np.sort(np.concatenate(found))


def part(whole: HeldOutSplit, rows: NDArray[np.int64]) -> HeldOutSplit:
    """Some rows of a held-out split."""
    index = torch.from_numpy(rows)
    return replace(
        whole,
        features=whole.features[index],
        label=whole.label[index],
        grouping=_rows_of(whole.grouping, rows),
        criterion=_rows_of(whole.criterion, rows),
    )


def _rows_of(grouping: Grouping, rows: NDArray[np.int64]) -> Grouping:
    weight = None if grouping.weight is None else grouping.weight[rows]
    return replace(grouping, index=grouping.index[rows], weight=weight)


def validation(given: Opened, criterion: str, rows: NDArray[np.int64]) -> HeldOutSplit:
    """The validation split that a criterion sees."""
    name = criterion.partition(",")[0]
    whole = HeldOutSplit.to_choose(given.file("features"), CPU, given.model("erm").head(), name)
    return whole if criterion == "groups" else part(whole, rows)


def chosen(given: Opened, fit: FitParams, held_out: HeldOutSplit) -> Iterator[tuple[str, Heads, str]]:
    """Each method's heads and its settings, chosen on one validation split."""
    for name, heads, setting in mac_heads(given, fit, held_out):
        yield name, heads, f"alpha {setting.alpha:g}, beta {setting.beta:g}"
    cached = replace(Cached.of(given, fit, [0.0], "worst_class", CPU), validation=held_out)
    trains_on_groups = ("validation, to train", "training, to train")
    for name, method in METHODS.items():
        if held_out.criterion.kind == "group" or method.labels not in trains_on_groups:
            fitted = method.fit(cached)
            yield name, fitted.heads, str(fitted.chosen)


def measured(given: Opened, fit: FitParams, seed: int) -> Iterator[Row]:
    """A row for each criterion and method: accuracies on the test split, means over the heads."""
    test, rows = HeldOutSplit.to_measure(given.file("features"), "test", CPU), cut(given, seed)
    for criterion in CRITERIA:
        for method, heads, settings in chosen(given, fit, validation(given, criterion, rows)):
            worst, mean = test.scores(heads)
            yield {
                "seed": seed,
                "criterion": criterion,
                "method": method,
                "test_worst": worst.mean(),
                "test_mean": mean.mean(),
                "settings": settings,
            }


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds of ERM, with commas between them.")
@click.option("--size", default=224, show_default=True, help="Side of the network's input, pixels.")
@click.option("--epochs", default=6, show_default=True, help="Epochs of ERM.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for the ERM runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file to write.")
def command(root: Path, weights: Path, seeds: str, size: int, epochs: int, work: Path, out: Path) -> None:
    """Choose every last-layer method by every criterion on Waterbirds."""
    found: list[Row] = []
    others: list[Path] = []
    for seed in map(int, seeds.split(",")):
        values = parameters(root, "mobilenet_v2", weights, size, epochs, seed)
        values["train"]["keep_epochs"] = [1]  # SELF wants an early one
        with made(values, work / str(seed), others) as given:
            others = [work / str(seed) / "images.h5"]
            for row in measured(given, fit_params(values), seed):
                found.append(row)
                click.echo("  ".join(map(str, row.values())))
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    command()
