"""How a demo dataset shows the method: candidates of it, each trained over several seeds of ERM.

    python -m benchmarks.demo_design NAME [--counts 475,25,25,475] [--visibility 0.5,0.9]
        [--extent 0.75,1.0] [--set train.epochs=30] [--like OTHER] --seeds 0,1,2 --work FOLDER --log FILE.csv

A candidate is the present demo with other images or other parameters. All settings of the last layer are
chosen on its validation split; its test split measures. Each run adds a row to the log, so that the log is
the history of the search. What was made is kept in the work folder, so a run that was cut off goes on.

The demo should show what the paper shows on Waterbirds: MaC far above plain last-layer retraining (LLR), and
xGradCAM's masks above random masks of the same size, on any machine.
"""

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from ruamel.yaml import YAML
from scipy import stats

from benchmarks.waterbirds import CPU, claimed, fit_params, made
from pipeline import store
from pipeline.demo import waterbirds_layout
from pipeline.demo.painting import Look
from pipeline.last_layer import mac
from pipeline.last_layer.grid import fit_grid
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.methods import METHODS
from pipeline.last_layer.views import Views
from pipeline.params.study import SEEDS, put
from pipeline.params.sweep import SweepParams
from pipeline.project import Opened
from pipeline.results.coverage import by_group

OTHERS = ("erm", "llr", "cb_llr", "afr", "dfr_l2")
Row = dict[str, Any]


def parameters(root: Path, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The demo's parameters with these images, this seed, and these changes by dotted name."""
    values: dict[str, Any] = YAML(typ="safe").load(Path("params.yaml"))
    values["dataset"]["root"] = str(root)
    values["model"]["weights"] = str(Path(values["model"]["weights"]).resolve())
    values["saliency"]["previews"] = 0
    for name, value in {**dict.fromkeys(SEEDS, seed), **changes}.items():
        put(values, name, value)
    return values


def run(values: dict[str, Any], data: Path, others: Sequence[Path]) -> Row:
    """The figures of one run of ERM, in [0, 1]: of every method with MaC's masks, and of random masks."""
    claimed(values, data)
    file = data / "measured.json"
    if not file.exists():
        started = time.monotonic()
        with made(values, data, others) as given:
            found = of_methods(given, values) | of_masks(given)
        shared = [data / "images.h5", data / "erm"]
        random = values | {"saliency": values["saliency"] | {"method": "random"}}
        with made(random, data / "random", shared) as given:
            found |= {f"random_{key}": value for key, value in of_mac(given, values).items()}
        store.write_json(file, found | {"seconds": round(time.monotonic() - started)})
    row: Row = json.loads(file.read_text())
    return row


def of_methods(given: Opened, values: dict[str, Any]) -> Row:
    """Worst-group and mean accuracy on the test split of MaC and of OTHERS, means over the heads."""
    cached = Cached.of(given, fit_params(values), [0.0], "groups", CPU)
    test = HeldOutSplit.to_measure(given.file("features"), "test", CPU)
    found: Row = of_mac(given, values)
    for name in OTHERS:
        worst, mean = test.scores(METHODS[name].fit(cached).heads)
        found |= {f"{name}_worst": float(worst.mean()), f"{name}_mean": float(mean.mean())}
    return found


def of_mac(given: Opened, values: dict[str, Any]) -> Row:
    """The same of MaC with α and β as validation picks them, and these two."""
    features, erm, fit = given.file("features"), given.model("erm").head(), fit_params(values)
    sweep = SweepParams(**values["sweep"])
    tried = fit.model_copy(update={"seeds": sweep.seeds, "average": sweep.average})
    grid = fit_grid(features, erm, tried, sweep, "groups", CPU)
    setting = grid.settings[grid.best]
    held_out = HeldOutSplit.to_choose(features, CPU, erm, "groups")
    heads = mac.fit(Views.of(features, fit, CPU), held_out, Heads.of(erm), fit, [setting]).heads
    worst, mean = HeldOutSplit.to_measure(features, "test", CPU).scores(heads)
    return {
        "alpha": setting.alpha,
        "beta": setting.beta,
        "mac_worst": float(worst.mean()),
        "mac_mean": float(mean.mean()),
    }


def of_masks(given: Opened) -> Row:
    """The shares of the true foregrounds and of the rest that the masks cover: means over the groups."""
    table = by_group(given.file("images"), given.file("masks"), given.model("erm").spec)
    foreground, rest = [row.mask_fg for row in table], [row.mask_bg for row in table]
    found: Row = {f"mask_fg_{group}": float(share) for group, share in enumerate(foreground)}
    return {"mask_fg": float(np.mean(foreground)), "mask_bg": float(np.mean(rest)), **found}


def interval(differences: Sequence[float]) -> str:
    """The mean in points, and its 95 % interval over the runs (Student's t)."""
    points = 100 * np.array(differences)
    if len(points) < 2:
        return f"{points.mean():+.1f} (one run)"
    half = stats.t.ppf(0.975, len(points) - 1) * points.std(ddof=1) / np.sqrt(len(points))
    return f"{points.mean():+.1f} ({points.mean() - half:.1f} to {points.mean() + half:.1f})"


def summary(rows: Sequence[Row]) -> str:
    """The score of a candidate in one line, in % and points."""

    def spread(name: str) -> str:
        points = [100 * row[name] for row in rows]
        return f"{np.mean(points):.1f} ({min(points):.1f} to {max(points):.1f})"

    gain = [row["mac_worst"] - row["llr_worst"] for row in rows]
    masks = [row["mac_worst"] - row["random_mac_worst"] for row in rows]
    return "; ".join(
        [
            f"{len(rows)} runs: ERM {spread('erm_worst')}, LLR {spread('llr_worst')}",
            f"MaC {spread('mac_worst')}, DFR {spread('dfr_l2_worst')}",
            f"MaC - LLR {interval(gain)}, xGradCAM - random {interval(masks)}",
            f"Mask/FG {spread('mask_fg')}, Mask/BG {spread('mask_bg')}",
        ]
    )


def _paint(root: Path, training: list[int], look: Look) -> None:
    """Paint the images into `root`, unless they are there.

    Raises:
        ClickException: other ones are there.
    """
    about, file = {"training": training, **asdict(look)}, root.with_suffix(".json")
    if not root.exists():
        counts = waterbirds_layout.GROUP_COUNTS | {0: tuple(training)}
        waterbirds_layout.write(root, 0, counts, look=look)
        store.write_json(file, about)
    if json.loads(file.read_text()) != json.loads(json.dumps(about)):
        raise click.ClickException(f"{root}: painted otherwise; give the candidate another name")


def _numbers(_context: click.Context, _option: click.Parameter, given: str) -> tuple[float, ...]:
    return tuple(float(each) for each in given.split(","))


@click.command()
@click.argument("name")
@click.option("--counts", default="490,10,10,490", callback=_numbers, help="Training images of each group.")
@click.option("--visibility", default="0.5,0.9", callback=_numbers, help="Opacity of the birds, from and to.")
@click.option("--extent", default="0.75,1.0", callback=_numbers, help="Size of the birds, from and to.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Another value of a parameter.")
@click.option("--like", help="Take the images and the ERM runs of this candidate.")
@click.option("--seeds", default="0,1,2", show_default=True, callback=_numbers, help="Seeds of ERM.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for the runs.")
@click.option("--log", type=click.Path(path_type=Path), required=True, help="CSV file to add the rows to.")
def command(
    name: str,
    counts: tuple[float, ...],
    visibility: tuple[float, float],
    extent: tuple[float, float],
    changes: Sequence[str],
    like: str | None,
    seeds: tuple[float, ...],
    work: Path,
    log: Path,
) -> None:
    """Score the candidate NAME of the demo."""
    source = like or name
    root, yaml = (work / source / "raw").resolve(), YAML(typ="safe")
    training = [int(each) for each in counts]
    _paint(root, training, Look(visibility, extent))
    pairs = [each.split("=", 1) for each in changes]
    changed = {key: yaml.load(value) for key, value in pairs}
    rows: list[Row] = []
    for seed in map(int, seeds):
        data = work / name / str(seed)
        first = work / source / str(int(seeds[0])) / "images.h5"
        others = [first, work / source / str(seed) / "erm"] if like else [first]
        row = run(parameters(root, seed, changed), data, [each for each in others if each.exists()])
        about = {"counts": training, "visibility": visibility, "extent": extent, **changed}
        rows.append({"candidate": name, "seed": seed, **row, "about": json.dumps(about)})
        header = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if header:
                writer.writeheader()
            writer.writerow(rows[-1])
        click.echo(f"{name}: {summary(rows)}")


if __name__ == "__main__":
    command()
