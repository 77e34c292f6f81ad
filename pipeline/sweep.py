"""Stage sweep: every (α, β) and every seed in one batched fit; validation picks, the test split is shown beside it."""

from pathlib import Path

import numpy as np
import torch

from pipeline import store
from pipeline.compute.progress import log
from pipeline.last_layer.grid import fit_grid, test_scores
from pipeline.last_layer.heads import Heads
from pipeline.params import RetrainParams, SweepParams


def sweep(features_path: Path, erm_path: Path, out: Path, params: SweepParams, retraining: RetrainParams, on: torch.device) -> None:
    """Fit the grid; write the folder `out`.

    seeds.csv has a row a setting and seed: alpha, beta, seed, `val_worst`, `val_mean`, `test_worst`, `test_mean`. mean.csv has a row a
    setting: their means over the seeds, and `picked`: 1 for the setting with the best validation worst group (ties: the mean, then
    the first), 0 for the others. picked.json has that row.
    """
    with store.open_artefact(features_path, "features") as features:
        erm = store.open_model(erm_path, "erm")
        features.provenance.require("features", features_path, {"erm": erm.digest})
        grid = fit_grid(features, Heads.of(*erm.head()), retraining, params, on)
        found = np.concatenate([grid.val, test_scores(features, grid.heads)])  # (names, S, K)
        made_from = {"features": features.digest, "erm": erm.digest}
    names = ("val_worst", "val_mean", "test_worst", "test_mean")
    each = [
        {"alpha": alpha, "beta": beta, "seed": seed, **dict(zip(names, found[:, s, k].tolist(), strict=True))}
        for k, (alpha, beta) in enumerate(grid.settings)
        for s, seed in enumerate(grid.seeds)
    ]
    means = [
        {"alpha": alpha, "beta": beta, **dict(zip(names, found[:, :, k].mean(1).tolist(), strict=True)), "picked": int(k == grid.picked)}
        for k, (alpha, beta) in enumerate(grid.settings)
    ]
    with store.create_folder(out) as folder:
        store.write_csv(folder / "seeds.csv", each)
        store.write_csv(folder / "mean.csv", means)
        store.write_json(folder / "picked.json", {"made_from": made_from, **means[grid.picked]})
    worst = means[grid.picked]["val_worst"]
    log.info("validation picks alpha=%g, beta=%g (worst %s %.3f)", *grid.settings[grid.picked], grid.kind, worst)
