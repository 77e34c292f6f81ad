"""Is the diagnosis right? What it says before retraining against what retraining then does.

    python -m benchmarks.assumption [--sets scene,corner] [--correlations 0.9,0.98] [--seed 0]
        [--dominoes FOLDER] --out assumption.csv

Each painted set goes through the pipeline up to the sweep. No group label chooses: the diagnosis picks α and
β, and a validation split as biased as the training split chooses epochs. The test split is balanced. Dominoes
has balanced validation and test splits. A set that is already in the CSV file is skipped, so a killed run can
go on.
"""

import csv
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.painted_sets import SETS, PaintedSet
from pipeline import graph
from pipeline.params_file import load
from pipeline.results.diagnosis import diagnose
from pipeline.results.judgement import figures_of
from stages.cli import main

STAGES = ("prepare", "train", "saliency", "masks", "originals", "features", "sweep")
FIXED = {"alpha": 1.0, "beta": 30.0}  # the setting that the presets for one's own data had
MARGIN = 0.02  # a smaller difference in worst-group accuracy counts as none
DOMINOES = {
    "name": "dominoes",
    "stored_size": 64,
    "to_input": "resize",
    "options": {
        "core": "cifar10",
        "spurious": "mnist",
        "core_classes": ["automobile", "truck"],
        "spurious_classes": ["0", "1"],
        "correlation": 0.95,
        "val": 0.15,
        "seed": 0,
    },
}
# Makes the dataset in a folder, and returns what differs in params.yaml's `dataset`.
Maker = Callable[[Path], dict[str, Any]]


def painted(each: PaintedSet, seed: int, folder: Path) -> dict[str, Any]:
    """Paint the set."""
    each.write(folder / "raw", seed)
    return {"name": "waterbirds", "root": str(folder / "raw")}


def dominoes(root: Path, _folder: Path) -> dict[str, Any]:
    """The Dominoes of the images that are there."""
    return {**DOMINOES, "root": str(root.resolve())}


def project(maker: Maker, seed: int, folder: Path) -> Path:
    """Make the dataset, run the stages, and return the data folder."""
    yaml = YAML(typ="safe")
    values = yaml.load(Path("params.yaml"))
    values["dataset"] |= maker(folder)
    values["train"] |= {"seed": seed, "precision": "float32"}
    values["features"]["draws"] = 1
    values["selection"]["criterion"] = "soft_errors"
    values["sweep"] |= {"alphas": [0, 1], "betas": [0, 3, 30]}
    params, data = folder / "params.yaml", folder / "data"
    yaml.dump(values, params)
    load(params)
    for stage in STAGES:
        main.main([stage, "--data", str(data), "--params", str(params)], standalone_mode=False)
    return data


def measured(maker: Maker, seed: int) -> dict[str, Any]:
    """The diagnosis, and the test accuracies of ERM, plain retraining, MaC, and what the sweep picked.

    `outcome` is MaC's worst group against the better one of ERM and plain retraining; `over_erm` and
    `over_plain` are MaC's worst-group accuracy less theirs.
    """
    with tempfile.TemporaryDirectory() as temporary:
        data = project(maker, seed, Path(temporary))
        with graph.project(data).open("images", "erm", "masks", "features") as given:
            found = diagnose(given)
        with (data / "sweep/mean.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    compared = {
        "erm": next(row for row in rows if row["alpha"] == ""),
        "plain": _setting(rows, 0.0, 0.0),
        "mac": _setting(rows, FIXED["alpha"], FIXED["beta"]),
        "picked": next(row for row in rows if row["picked"] == "1"),
    }
    worst = {f"{name}_worst": float(row["test_worst"]) for name, row in compared.items()}
    mean = {f"{name}_mean": float(row["test_mean"]) for name, row in compared.items()}
    over = {f"over_{name}": worst["mac_worst"] - worst[f"{name}_worst"] for name in ("erm", "plain")}
    gain = min(over.values())
    return {
        "verdict": found["verdict"],
        "dependence": found["dependence"],
        **asdict(figures_of(found)),
        "difference": found["balanced"]["dependence"],
        **worst,
        **mean,
        "picked_alpha": compared["picked"]["alpha"],
        "picked_beta": compared["picked"]["beta"],
        **over,
        "outcome": "better" if gain > MARGIN else "worse" if gain < -MARGIN else "the same",
    }


def _setting(rows: list[dict[str, str]], alpha: float, beta: float) -> dict[str, str]:
    for row in rows:
        if row["alpha"] and (float(row["alpha"]), float(row["beta"])) == (alpha, beta):
            return row
    raise LookupError(f"the sweep has no α = {alpha}, β = {beta}")


def _makers(seed: int, root: Path | None) -> Iterator[tuple[str, float, Maker]]:
    """Name, correlation and maker of every set."""
    for each in SETS:
        yield each.name, each.correlation, partial(painted, each, seed)
    if root:
        yield "dominoes", float(DOMINOES["options"]["correlation"]), partial(dominoes, root)


def _known(out: Path) -> set[tuple[str, str, str]]:
    """Name, correlation and seed of the sets in the CSV file."""
    if not out.exists():
        return set()
    with out.open(newline="") as file:
        return {(row["set"], row["correlation"], row["seed"]) for row in csv.DictReader(file)}


@click.command()
@click.option("--sets", default="", help="Names of sets, with commas between them; all if empty.")
@click.option("--correlations", default="", help="Correlations, with commas between them; all if empty.")
@click.option("--seed", default=0, show_default=True, help="Seed of the painting and of ERM.")
@click.option("--dominoes", "root", type=click.Path(path_type=Path), help="dataset.root of Dominoes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file to add to.")
def command(sets: str, correlations: str, seed: int, root: Path | None, out: Path) -> None:
    """Hold the diagnosis against what retraining does, on painted sets."""
    known = _known(out)
    for name, correlation, maker in _makers(seed, root):
        about = {"set": name, "correlation": correlation, "seed": seed}
        wanted = (not sets or name in sets.split(",")) and (
            not correlations or str(correlation) in correlations.split(",")
        )
        if not wanted or (name, str(correlation), str(seed)) in known:
            continue
        row = {**about, **measured(maker, seed)}
        with out.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    command()
