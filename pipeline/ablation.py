"""Stage ablation: is it the masks? MaC again with random masks of the same size, and with the true ones."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from pipeline import store
from pipeline.compute.engine import Shards
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.features import features
from pipeline.last_layer.grid import fit_grid, test_scores
from pipeline.last_layer.heads import Heads
from pipeline.method.masks import pixel_count
from pipeline.metrics import Grouping, Groups
from pipeline.params import FeaturesParams, RetrainParams, SaliencyParams, SweepParams
from pipeline.results import tables
from pipeline.results.scores import head_scores
from pipeline.saliency import saliency, with_foreground

NAMES = {
    "own": "{method} (MaC)",
    "random": "random masks of the same size",
    "own_known": "{method}, images with a true mask",
    "foreground": "true masks",
}


def ablation(
    images_path: Path,
    erm_path: Path,
    masks_path: Path,
    features_path: Path,
    out: Path,
    saliency_params: SaliencyParams,
    features_params: FeaturesParams,
    retraining: RetrainParams,
    sweep: SweepParams,
    on: torch.device,
    scratch: Path,
) -> str:
    """Write the folder `out` with metrics.json; return the table to print.

    Every kind of mask has the same pairs, batches and seeds, and its own α and β, picked by validation from the sweep's grid. Where
    only some training images have a true mask, the true masks are compared with MaC's on those images alone.

    Raises:
        MacError: saliency.method is itself a control.
    """
    method = saliency_params.method
    if method in ("random", "foreground"):
        raise MacError(f"ablation: saliency.method is the control '{method}'; there is nothing to compare it with")
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(masks_path, "masks", {"images": images.digest, "erm": erm.digest}) as masks:
            rows = masks["row"][:]
        known = with_foreground(images, rows)
        made_from = {"images": images.digest, "erm": erm.digest}
        size = images.provenance.params["input_size"]
        groups = Groups.of(images)
        in_training = images["split"][:] == 0
        training = groups.grouping(images["label"][:][in_training], images["attribute"][:][in_training])

    # What is done is kept until all is: the folder's name says what it depends on.
    with Shards(scratch, "ablation", saliency_params.model_dump(), features_params.model_dump(), made_from, rows.tolist()) as kept:

        def made(name: str, method: str, of: NDArray[np.int64]) -> Path:
            """features.h5 with masks of `method` on the rows `of`."""
            changed = saliency_params.model_copy(update={"method": method, "previews": 0})
            target = kept.folder / name
            if (target / "features.h5").is_file():
                return target / "features.h5"
            saliency(images_path, erm_path, target / "masks.h5", changed, on, scratch, rows=of)
            features(images_path, erm_path, target / "masks.h5", target / "features.h5", features_params, on, scratch)
            return target / "features.h5"

        files = {"own": features_path, "random": made("random", "random", rows)}
        if len(known):
            files["own_known"] = features_path if len(known) == len(rows) else made("own_known", method, known)
            files["foreground"] = made("foreground", "foreground", known)
        found: dict[str, tuple[dict[str, Any], NDArray[np.float64]]] = {}
        for name, file in files.items():
            if name == "own_known" and file == features_path:
                found[name] = found["own"]
                continue
            found[name] = _fitted(file, erm.head(), retraining, sweep, training, on)
            log.info("ablation, %s: alpha=%g, beta=%g", name, found[name][0]["alpha"], found[name][0]["beta"])
        names = {name: text.format(method=method) for name, text in NAMES.items()}
        if files.get("own_known") == features_path:  # all are known: one and the same row
            names["own_known"] = names["own"]
        kinds = {names[name]: row for name, (row, _) in found.items()}
        pairs = [("own", "random")] + ([("foreground", "own_known")] if len(known) else [])
        differences = [{"name": f"{names[a]} − {names[b]}", **paired(found[a][1] - found[b][1])} for a, b in pairs]
        result = {
            "made_from": made_from,
            "pixels": pixel_count(saliency_params.top_k, size),
            "settings": "α and β picked by validation for each kind of mask",
            "masks": [{"name": name, **row} for name, row in kinds.items()],
            "differences": differences,
        }
        with store.create_folder(out) as written:
            store.write_json(written / "metrics.json", result)
    return tables.of_ablation(result)


def _fitted(
    path: Path,
    erm: tuple[NDArray[np.float32], NDArray[np.float32]],
    retraining: RetrainParams,
    sweep: SweepParams,
    training: Grouping,
    on: torch.device,
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """The row of one kind of mask, and each seed's test worst group, (S,)."""
    with store.open_artefact(path, "features") as cached:
        grid = fit_grid(cached, Heads.of(*erm), retraining, sweep, on)
        chosen = Heads(grid.heads.weight[:, [grid.picked]], grid.heads.bias[:, [grid.picked]])
        fitted = chosen.weight[:, 0].numpy(), chosen.bias[:, 0].numpy()
        measured = {part: head_scores(cached, part, *fitted, training) for part in ("val", "test")}
        worst = test_scores(cached, chosen)[0, :, 0]
    alpha, beta = grid.settings[grid.picked]
    return {"alpha": alpha, "beta": beta, "seeds": len(grid.seeds), **measured}, worst


def paired(differences: NDArray[np.float64]) -> dict[str, float]:
    """Mean of paired differences (S,) and its 95 % interval by Student's t; the mean itself thrice where there is one pair."""
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return {"mean": mean, "low": mean, "high": mean}
    half = float(stats.t.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / math.sqrt(count)
    return {"mean": mean, "low": mean - half, "high": mean + half}
