"""What the mirror image's map is good for: masks and heads with and without `saliency.flip`, on Waterbirds.

    python -m benchmarks.flips WATERBIRDS --network mobilenet_v2=WEIGHTS [--network ARCHITECTURE=WEIGHTS]
        --seeds 0,1,2 --work FOLDER --out flips.csv

Each run of ERM, a network and a seed, gets both kinds of masks. The groups of the validation split choose,
the test split measures. Everything but the features is kept in the work folder, so a run that was cut off can
go on. At the end comes a table: means over the seeds with lowest and highest, and the mean of the differences
within a seed with its 95 % interval (Student's t).
"""

import csv
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.waterbirds import CPU, claimed, fit_params, mac_heads, made, parameters
from pipeline import store
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.views import Views
from pipeline.params.fit import FitParams
from pipeline.project import Opened
from pipeline.results.coverage import by_group
from pipeline.setting import Setting

TOP_K = 15000 / 224**2  # the paper's
ABOUT = ("network", "seed", "flip", "alpha", "beta")  # columns that are no figures

Row = dict[str, Any]


def measured(values: dict[str, Any], data: Path, others: Sequence[Path]) -> Row:
    """The figures of one project, whose features are deleted then; those that it has, if it has some."""
    claimed(values, data)
    file = data / "measured.json"
    if not file.exists():
        with made(values, data, others) as given:
            store.write_json(file, figures(given, fit_params(values)))
        (data / "features.h5").unlink()
    found: Row = json.loads(file.read_text())
    return found


def figures(given: Opened, fit: FitParams) -> Row:
    """Accuracies on the test split, and the shares that the masks cover, all in [0, 1].

    The accuracies are means over the heads. `mac` has α = 1 and β = 30, `picked` the `alpha` and `beta` that
    the groups of validation pick, `paper` the settings of `make waterbirds`. `mask_fg` and `mask_bg` are
    means over the groups.
    """
    features, erm = given.file("features"), given.model("erm")
    head = Heads.of(erm.head())
    held_out = HeldOutSplit.to_choose(features, CPU, erm.head(), "groups")

    def fitted(setting: Setting, **other: object) -> Heads:
        params = fit.model_copy(update=other)
        return mac.fit(Views.of(features, params, CPU), held_out, head, params, [setting]).heads

    (_, picked, setting), (_, fixed, _) = mac_heads(given, fit, held_out)
    heads = {
        "erm": head,
        "llr": fitted(Setting(0.0, 0.0), class_weights="none"),
        "mac": fixed,
        "picked": picked,
        "paper": fitted(Setting(2.0, 3.0), class_weights="none", standardize=False),
    }
    found: Row = {"alpha": setting.alpha, "beta": setting.beta}
    test = HeldOutSplit.to_measure(features, "test", CPU)
    for name, each in heads.items():
        worst, mean = test.scores(each)
        found |= {f"{name}_worst": float(worst.mean()), f"{name}_mean": float(mean.mean())}
    table = by_group(given.file("images"), given.file("masks"), erm.spec)
    for name in ("mask_fg", "mask_bg"):
        of_group = {f"{name} {row.group}": getattr(row, name) for row in table}
        found |= {name: float(np.mean(list(of_group.values()))), **of_group}
    return found


def difference(without: Sequence[float], flipped: Sequence[float]) -> tuple[float, float]:
    """The mean difference with flips, and half of its 95 % interval; NaN if there is one pair only."""
    each = np.subtract(flipped, without)
    if len(each) < 2:
        return float(each.mean()), float("nan")
    half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    return float(each.mean()), float(half)


def summary(rows: Sequence[Row]) -> str:
    """A Markdown table for each network, in %; the test split, if it says nothing else."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        of_network = [row for row in rows if row["network"] == network]
        count = len({row["seed"] for row in of_network})
        lines += [f"| {network}, {count} runs | no flips | flips | difference |", "|---|---|---|---|"]
        for name in [key for key in rows[0] if key not in ABOUT]:
            without = [100 * row[name] for row in of_network if not row["flip"]]
            flipped = [100 * row[name] for row in of_network if row["flip"]]
            mean, half = difference(without, flipped)
            lines.append(f"| {name} | {_range(without)} | {_range(flipped)} | {mean:+.1f} ± {half:.1f} |")
        lines.append("")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    found: NDArray[np.float64] = np.array(values)
    return f"{found.mean():.1f} ({found.min():.1f} to {found.max():.1f})"


def _networks(_context: click.Context, _option: click.Parameter, given: Sequence[str]) -> dict[str, Path]:
    """--network: the file of weights of each architecture."""
    found = {}
    for each in given:
        architecture, _, weights = each.partition("=")
        if not Path(weights).is_file():
            raise click.BadParameter(f"{each}: should be <architecture>=<file of weights>")
        found[architecture] = Path(weights)
    return found


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--network", "networks", multiple=True, required=True, callback=_networks,
    metavar="ARCHITECTURE=WEIGHTS", help="A network and its file of weights; may be given again.",
)  # fmt: skip
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds of ERM, with commas between them.")
@click.option("--size", default=224, show_default=True, help="Side of the network's input, pixels.")
@click.option("--epochs", default=6, show_default=True, help="Epochs of ERM.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for the ERM runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The CSV file to write.")
def command(
    root: Path, networks: dict[str, Path], seeds: str, size: int, epochs: int, work: Path, out: Path
) -> None:
    """Compare masks and heads with and without flips on Waterbirds."""
    rows: list[Row] = []
    images: list[Path] = []
    for seed, architecture in product(map(int, seeds.split(",")), networks):
        erm: list[Path] = []
        for flip in (False, True):
            values = parameters(root, architecture, networks[architecture], size, epochs, seed)
            values["saliency"] |= {"flip": flip, "top_k": TOP_K}
            values["features"]["precision"] = "auto"  # as in `make waterbirds`
            data = work / architecture / str(seed) / ("flips" if flip else "no_flips")
            found = measured(values, data, [*images, *erm])
            rows.append({"network": architecture, "seed": seed, "flip": flip, **found})
            images, erm = images or [data / "images.h5"], [data / "erm"]
            click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        click.echo(summary(rows))


if __name__ == "__main__":
    command()
