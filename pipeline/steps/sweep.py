"""Stage sweep: fits every (α, β) with every seed at once.

Validation picks a setting. Test results are shown, but they pick nothing.
"""

from pathlib import Path

import numpy as np

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.progress import log
from pipeline.last_layer.grid import Grid, fit_grid, scores_of_test_split
from pipeline.metrics import Accuracy
from pipeline.params.fit import FitParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Opened

NAMES = ("val_worst", "val_mean", "test_worst", "test_mean")

Row = dict[str, object]


def sweep(
    given: Opened,
    out: Path,
    params: SweepParams,
    fit: FitParams,
    selection: SelectionParams,
    context: Context,
) -> None:
    """Fit the grid and write the folder `out`.

    seeds.csv has a row for each setting and seed: alpha, beta, seed, `val_worst`, `val_mean`, `test_worst`,
    `test_mean`. mean.csv has a row for each setting: the means over its seeds, and `picked`, which is 1 for
    the setting that validation prefers (`metrics.prefer`) and 0 for the others. metrics.json has the row of
    the picked setting, and the `criterion` that picked; `val_worst` and `val_mean` are by this criterion.

    Args:
        given: erm and features.
    """
    features = given.file("features")
    grid = fit_grid(features, given.model("erm").head(), fit, params, selection.criterion, context.on)
    found = np.concatenate([grid.val, scores_of_test_split(features, grid.heads)])  # (NAMES, S, K)
    each, means = _rows(grid, found)
    picked = means[grid.picked]
    with store.create_folder(out) as folder:
        store.write_csv(folder / "seeds.csv", each)
        store.write_csv(folder / "mean.csv", means)
        made = {"made_from": given.digests("features", "erm"), "criterion": grid.criterion}
        store.write_json(folder / "metrics.json", {**made, **picked})
    alpha, beta = grid.settings[grid.picked]
    found_by = (grid.criterion, picked["val_worst"])
    log.info("validation picks alpha=%g, beta=%g (%s: worst %.3f)", alpha, beta, *found_by)


def _rows(grid: Grid, found: Accuracy) -> tuple[list[Row], list[Row]]:
    """The rows of seeds.csv and of mean.csv, from accuracies (NAMES, S, K)."""
    each: list[Row] = []
    means: list[Row] = []
    for k, (alpha, beta) in enumerate(grid.settings):
        setting = {"alpha": alpha, "beta": beta}
        of_setting = found[:, :, k]  # (NAMES, S)
        for seed, values in zip(grid.seeds, of_setting.T.tolist(), strict=True):
            each.append({**setting, "seed": seed, **dict(zip(NAMES, values, strict=True))})
        mean = dict(zip(NAMES, of_setting.mean(1).tolist(), strict=True))
        means.append({**setting, **mean, "picked": int(k == grid.picked)})
    return each, means
