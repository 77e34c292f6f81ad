"""Is the diagnosis right? On painted sets, what it says before retraining against what retraining then does.

    python -m benchmarks.assumption [--sets scene,corner] [--seed 0] --out assumption.csv

Each set goes through the pipeline up to the sweep; α, β and epochs are chosen without group labels, by a
validation split as biased as the training split. The test split is balanced.
"""

import csv
import tempfile
from dataclasses import asdict
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

STAGES = ("prepare", "train", "saliency", "features", "sweep")
FIXED = {"alpha": 1.0, "beta": 30.0}  # the setting that the presets for one's own data had
MARGIN = 0.02  # a smaller difference in worst-group accuracy counts as none


def project(each: PaintedSet, seed: int, folder: Path) -> Path:
    """Paint the set, run the stages, and return the data folder."""
    each.write(folder / "raw", seed)
    yaml = YAML(typ="safe")
    values = yaml.load(Path("params.yaml"))
    values["dataset"] |= {"name": "waterbirds", "root": str(folder / "raw")}
    values["train"]["seed"] = seed
    values["selection"]["criterion"] = "soft_errors"
    values["sweep"] |= {"alphas": [0, 1, 2], "betas": [0, 1, 3, 10, 30]}
    params, data = folder / "params.yaml", folder / "data"
    yaml.dump(values, params)
    load(params)
    for stage in STAGES:
        main.main([stage, "--data", str(data), "--params", str(params)], standalone_mode=False)
    return data


def measured(each: PaintedSet, seed: int) -> dict[str, Any]:
    """The diagnosis, and the worst-group test accuracy of ERM, of plain retraining, and of MaC."""
    with tempfile.TemporaryDirectory() as temporary:
        data = project(each, seed, Path(temporary))
        with graph.project(data).open("images", "erm", "masks", "features") as given:
            found = diagnose(given)
        with (data / "sweep/mean.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    erm = next(row for row in rows if row["alpha"] == "")
    llr, mac = (_setting(rows, alpha, beta) for alpha, beta in ((0.0, 0.0), tuple(FIXED.values())))
    picked = next(row for row in rows if row["picked"] == "1")
    worst = {
        name: float(row["test_worst"])
        for name, row in {"erm": erm, "llr": llr, "mac": mac, "picked": picked}.items()
    }
    gain = worst["mac"] - max(worst["erm"], worst["llr"])
    outcome = "better" if gain > MARGIN else "worse" if gain < -MARGIN else "the same"
    return {
        "set": each.name,
        "correlation": each.correlation,
        "seed": seed,
        "verdict": found["verdict"],
        **asdict(figures_of(found)),
        **worst,
        "picked_alpha": picked["alpha"],
        "picked_beta": picked["beta"],
        "outcome": outcome,
    }


def _setting(rows: list[dict[str, str]], alpha: float, beta: float) -> dict[str, str]:
    for row in rows:
        if row["alpha"] and (float(row["alpha"]), float(row["beta"])) == (alpha, beta):
            return row
    raise LookupError(f"the sweep has no α = {alpha}, β = {beta}")


@click.command()
@click.option("--sets", default="", help="Names of sets, with commas between them; all if empty.")
@click.option("--seed", default=0, show_default=True, help="Seed of the painting and of ERM.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file to write.")
def command(sets: str, seed: int, out: Path) -> None:
    """Hold the diagnosis against what retraining does, on painted sets."""
    chosen = [each for each in SETS if not sets or each.name in sets.split(",")]
    rows: list[dict[str, Any]] = []
    for each in chosen:
        rows.append(measured(each, seed))
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()))


if __name__ == "__main__":
    command()
