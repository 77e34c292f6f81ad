"""Stage retrain: the last layer on originals + α · masked + β · combined, from cached features, in seconds."""

from pathlib import Path

import numpy as np
import torch

from pipeline import store
from pipeline.compute.progress import log
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.mac import fit, load_views
from pipeline.last_layer.validation import Validation
from pipeline.metrics import as_dict, over_seeds
from pipeline.params import RetrainParams


def retrain(features_path: Path, erm_path: Path, masks_path: Path, out: Path, params: RetrainParams, on: torch.device) -> None:
    """Fit the heads and write the model folder `out`.

    Of the masks only the digest is read, and only where the file is there: features of other masks are refused.

    head.safetensors has all seeds' heads, weight (S, C, D) and bias (S, C); model.safetensors is the whole classifier with
    the head that validation prefers (worst group, then mean, then the lower seed).
    """
    with store.open_artefact(features_path, "features") as features:
        erm = store.open_model(erm_path, "erm")
        features.provenance.require("features", features_path, {"erm": erm.digest})
        if masks_path.is_file():
            with store.open_artefact(masks_path, "masks") as masks:
                features.provenance.require("features", features_path, {"masks": masks.digest})
        views, validation = load_views(features, params, on), Validation.of(features, on)
        made_from = {"features": features.digest, "erm": erm.digest}
    start = Heads.of(*erm.head()).to(on)
    seeds = list(range(params.seeds)) if params.solver == "adam" else [0]  # the minimum of a convex loss has no seed
    result = fit(views, validation, start, params, [params.alpha], [params.beta], seeds)
    accuracy = validation.accuracy(result.heads)[:, 0]
    worst, mean = (score.tolist() for score in validation.scores(accuracy))
    chosen = max(range(len(seeds)), key=lambda s: (worst[s], mean[s], -s))
    val = over_seeds([as_dict(a, validation.grouping, None) for a in accuracy])
    weight, bias = result.heads.weight[:, 0].cpu().numpy(), result.heads.bias[:, 0].cpu().numpy()
    with store.create_folder(out) as folder:
        tensors = erm.read() | {"head.weight": weight[chosen], "head.bias": bias[chosen]}
        made = params.model_dump() | {"head_seed": seeds[chosen]}
        store.write_model(folder, "retrained", tensors, erm.spec, made, made_from, head={"weight": weight, "bias": bias})
        store.write_csv(folder / "history.csv", result.history)
        store.write_json(folder / "metrics.json", {"head_seed": seeds[chosen], "epoch": result.epoch[:, 0].tolist(), "val": val})
    kind = validation.grouping.kind
    log.info("validation worst %s %.3f, mean %.3f (mean of %d heads)", kind, np.mean(worst), np.mean(mean), len(seeds))
