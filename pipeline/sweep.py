"""Stage sweep: every (α, β) and every seed in one batched fit; validation picks, the test split is shown beside it."""

from itertools import product
from pathlib import Path

import torch

from pipeline import store
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.mac import fit, load_views
from pipeline.last_layer.validation import Validation
from pipeline.metrics import Grouping, Groups, group_accuracy, weighted_mean, worst_group
from pipeline.params import RetrainParams, SweepParams
from pipeline.progress import log
from pipeline.store import Artefact


def sweep(features_path: Path, erm_path: Path, out: Path, params: SweepParams, retraining: RetrainParams, on: torch.device) -> None:
    """Fit the grid; write the folder `out`.

    seeds.csv has a row a setting and seed: alpha, beta, seed, `val_worst`, `val_mean`, `test_worst`, `test_mean`. mean.csv has a row a
    setting: their means over the seeds, and `picked`: 1 for the setting with the best validation worst group (ties: the mean, then
    the first), 0 for the others. picked.json has that row.
    """
    settings = list(product(params.alphas, params.betas))
    with store.open_artefact(features_path, "features") as features:
        erm = store.open_model(erm_path, "erm")
        features.provenance.require("features", features_path, {"erm": erm.digest})
        views, validation = load_views(features, retraining, on), Validation.of(features, on)
        seeds = list(range(retraining.seeds)) if retraining.solver == "adam" else [0]
        alphas, betas = [a for a, _ in settings], [b for _, b in settings]
        heads = fit(views, validation, Heads.of(*erm.head()).to(on), retraining, alphas, betas, seeds).heads
        val = torch.stack(validation.scores(validation.accuracy(heads))).cpu()  # (worst and mean, S, K)
        test = _test_scores(features, heads.to(torch.device("cpu")))
        made_from = {"features": features.digest, "erm": erm.digest}
    worst, mean = (score.mean(0).tolist() for score in val)
    picked = max(range(len(settings)), key=lambda k: (worst[k], mean[k], -k))
    names = ("val_worst", "val_mean", "test_worst", "test_mean")
    found = torch.cat([val, test])  # (names, S, K)
    each = [
        {"alpha": alpha, "beta": beta, "seed": seed, **dict(zip(names, found[:, s, k].tolist(), strict=True))}
        for k, (alpha, beta) in enumerate(settings)
        for s, seed in enumerate(seeds)
    ]
    means = [
        {"alpha": alpha, "beta": beta, **dict(zip(names, found[:, :, k].mean(1).tolist(), strict=True)), "picked": int(k == picked)}
        for k, (alpha, beta) in enumerate(settings)
    ]
    with store.create_folder(out) as folder:
        store.write_csv(folder / "seeds.csv", each)
        store.write_csv(folder / "mean.csv", means)
        store.write_json(folder / "picked.json", {"made_from": made_from, **means[picked]})
    log.info("validation picks alpha=%g, beta=%g (worst %s %.3f)", *settings[picked], validation.grouping.kind, worst[picked])


def _test_scores(features: Artefact, heads: Heads) -> torch.Tensor:
    """Worst-group and mean accuracy on the test split, (2, S, K)."""
    label = features["test/label"][:]
    grouping: Grouping = Groups.of(features).grouping(label, features["test/attribute"][:])
    x, group = torch.from_numpy(features["test/original"][:]), torch.from_numpy(grouping.index)
    # A setting at a time: all logits at once would grow with the grid.
    accuracy = torch.stack(
        [
            group_accuracy(
                Heads(heads.weight[:, [k]], heads.bias[:, [k]]).logits(x)[:, 0].argmax(-1) == torch.from_numpy(label),
                group,
                len(grouping.names),
            )
            for k in range(heads.bias.shape[1])
        ],
        1,
    )
    return torch.stack([worst_group(accuracy), weighted_mean(accuracy, torch.from_numpy(grouping.count))])
