"""Runs of ERM on Waterbirds, each in a project of its own, for the benchmarks that compare what follows ERM.

What was made there is not made again, so a run that was cut off can go on.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from ruamel.yaml import YAML

from pipeline import graph
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.views import Views
from pipeline.metrics import prefer
from pipeline.params.fit import FitParams
from pipeline.project import Opened
from pipeline.setting import Setting
from stages.cli import main

MADE = {
    "prepare": "images.h5",
    "train": "erm",
    "saliency": "maps.h5",
    "masks": "masks.h5",
    "originals": "originals.h5",
    "features": "features.h5",
}
ALPHAS, BETAS = (0.0, 1.0, 2.0), (0.0, 1.0, 3.0, 10.0, 30.0)
FIXED = Setting(1.0, 30.0)
CPU = torch.device("cpu")


def parameters(
    root: Path, architecture: str, weights: Path, size: int, epochs: int, seed: int
) -> dict[str, Any]:
    """The demo's parameters with this dataset and this network; ERM is trained as in `make waterbirds`."""
    values: dict[str, Any] = YAML(typ="safe").load(Path("params.yaml"))
    values["dataset"] |= {"name": "waterbirds", "root": str(root.resolve())}
    values["dataset"] |= {"stored_size": size * 8 // 7, "input_size": size}
    values["model"] |= {"architecture": architecture, "weights": str(weights.resolve())}
    values["train"] |= {"epochs": epochs, "lr": 0.002, "schedule": "constant", "select": "last", "seed": seed}
    values["features"]["draws"] = 2
    values["retrain"] |= {"seeds": 3, "average": 1}
    values["saliency"] |= {"previews": 0}
    return values


def fit_params(values: dict[str, Any]) -> FitParams:
    """How a last layer is fitted with these parameters."""
    return FitParams(**{key: values["retrain"][key] for key in FitParams.model_fields})


def claimed(values: dict[str, Any], data: Path) -> Path:
    """Write the parameters into a data folder, and return their file.

    Raises:
        ClickException: the folder has other parameters.
    """
    data.mkdir(parents=True, exist_ok=True)
    params, yaml = data / "params.yaml", YAML(typ="safe")
    if params.exists() and yaml.load(params) != values:
        raise click.ClickException(f"{params}: made with other parameters; take another --work folder")
    yaml.dump(values, params)
    return params


@contextmanager
def made(values: dict[str, Any], data: Path, others: Iterable[Path] = ()) -> Iterator[Opened]:
    """Run the stages whose artefacts are not there, and open what they made.

    Args:
        others: artefacts of other projects, made with the same parameters. They are not made again.
    """
    params = claimed(values, data)
    for artefact in others:
        _link(artefact, data / artefact.name)
    for stage, name in MADE.items():
        if not (data / name).exists():
            main.main([stage, "--data", str(data), "--params", str(params)], standalone_mode=False)
    with graph.project(data).open("images", "erm", "masks", "features") as given:
        yield given


def _link(artefact: Path, to: Path) -> None:
    """A second name for a file, or for the files in a folder, unless there is something."""
    if to.exists():
        return
    if artefact.is_dir():
        shutil.copytree(artefact, to, copy_function=os.link)
    else:
        os.link(artefact, to)


def mac_heads(given: Opened, fit: FitParams, held_out: HeldOutSplit) -> Iterator[tuple[str, Heads, Setting]]:
    """MaC's heads with the α and β that a validation split chooses, and with α = 1 and β = 30.

    The validation split chooses the epoch of both.
    """
    settings = [Setting(alpha, beta) for alpha, beta in product(ALPHAS, BETAS)]
    views, erm = Views.of(given.file("features"), fit, CPU), Heads.of(given.model("erm").head())
    heads = mac.fit(views, held_out, erm, fit, settings).heads
    worst, mean = held_out.scores(heads)
    best, fixed = prefer(worst.mean(0), mean.mean(0)), settings.index(FIXED)
    yield "mac", heads.of_setting(best), settings[best]
    yield "mac, alpha 1, beta 30", heads.of_setting(fixed), FIXED
