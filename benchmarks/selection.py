"""What choosing without group labels costs: every method chosen by every criterion, on the same ERM runs.

    python -m benchmarks.selection WATERBIRDS WEIGHTS --seeds 0,1,2 --work FOLDER --out selection.csv

Each ERM run has a project of its own in the work folder. What was made there is not made again, so a run
that was cut off can go on. The criteria that see no groups get a validation split cut to the correlation of
the training split, as one would have it without group labels; `groups` gets the whole split, and the cut one
too (`groups, cut`). The test split chooses nothing.
"""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML

from pipeline import graph
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.methods import METHODS
from pipeline.last_layer.views import Views
from pipeline.metrics import Grouping, prefer
from pipeline.params.fit import FitParams
from pipeline.project import Opened
from pipeline.setting import Setting
from stages.cli import main

MADE = {"prepare": "images.h5", "train": "erm", "saliency": "masks.h5", "features": "features.h5"}
# Without eiil: Waterbirds has two classes, so it is error_groups.
CRITERIA = ("groups", "groups, cut", "soft_errors", "error_groups", "worst_class")
ALPHAS, BETAS = (0.0, 1.0, 2.0), (0.0, 1.0, 3.0, 10.0, 30.0)
CPU = torch.device("cpu")

Row = dict[str, Any]


def parameters(root: Path, weights: Path, size: int, epochs: int, seed: int) -> dict[str, Any]:
    """The demo's parameters with this dataset and this network."""
    values: dict[str, Any] = YAML(typ="safe").load(Path("params.yaml"))
    values["dataset"] |= {"name": "waterbirds", "root": str(root.resolve())}
    values["dataset"] |= {"stored_size": size * 8 // 7, "input_size": size}
    values["model"] = {"architecture": "mobilenet_v2", "weights": str(weights.resolve())}
    values["train"] |= {"epochs": epochs, "lr": 0.002, "schedule": "constant", "select": "last", "seed": seed}
    values["train"]["keep_epochs"] = [1]
    values["features"]["draws"] = 2
    values["retrain"] |= {"seeds": 3, "average": 1}
    values["saliency"] |= {"previews": 0}
    return values


@contextmanager
def made(values: dict[str, Any], data: Path, images: Path | None) -> Iterator[Opened]:
    """Run the stages whose artefacts are not there, and open what they made.

    Args:
        images: an images.h5 of the same dataset; None if there is none yet.
    """
    data.mkdir(parents=True, exist_ok=True)
    params, yaml = data / "params.yaml", YAML(typ="safe")
    if params.exists() and yaml.load(params) != values:
        raise click.ClickException(f"{params}: made with other parameters; take another --work folder")
    yaml.dump(values, params)
    if images and not (data / "images.h5").exists():
        os.link(images, data / "images.h5")
    for stage, artefact in MADE.items():
        if not (data / artefact).exists():
            main.main([stage, "--data", str(data), "--params", str(params)], standalone_mode=False)
    with graph.project(data).open("images", "erm", "features") as given:
        yield given


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
    features, erm = given.file("features"), Heads.of(given.model("erm").head())
    settings = [Setting(alpha, beta) for alpha, beta in product(ALPHAS, BETAS)]
    heads = mac.fit(Views.of(features, fit, CPU), held_out, erm, fit, settings).heads
    worst, mean = held_out.scores(heads)
    best = prefer(worst.mean(0), mean.mean(0))
    yield "mac", heads.of_setting(best), f"alpha {settings[best].alpha:g}, beta {settings[best].beta:g}"
    yield "mac, alpha 1, beta 30", heads.of_setting(settings.index(Setting(1.0, 30.0))), ""
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
    images: Path | None = None
    for seed in map(int, seeds.split(",")):
        values, data = parameters(root, weights, size, epochs, seed), work / str(seed)
        with made(values, data, images) as given:
            images = data / "images.h5"
            fit = FitParams(**{key: values["retrain"][key] for key in FitParams.model_fields})
            for row in measured(given, fit, seed):
                found.append(row)
                click.echo("  ".join(map(str, row.values())))
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    command()
