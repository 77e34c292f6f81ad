"""Stage evaluate: ERM and MaC side by side on the test split."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.heads import Heads
from pipeline.metrics import Groups, as_dict, group_accuracy, over_seeds
from pipeline.store import Artefact

HELD_OUT = ("val", "test")


def evaluate(images_path: Path, features_path: Path, erm_path: Path, retrained_path: Path, metrics_path: Path, plot_path: Path) -> str:
    """Write metrics.json and the per-group plot data; return the table to print.

    metrics.json: `erm.<split>.<metric>` and `mac.<split>.<metric>.{mean, std}` over the retraining seeds, with the metrics
    of `metrics.as_dict`.
    """
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(features_path, "features", {"images": images.digest, "erm": erm.digest}) as features:
            retrained = store.open_model(retrained_path, "retrained", {"features": features.digest, "erm": erm.digest})
            groups = Groups(tuple(images.attribute("classes")), tuple(images.attribute("attributes")))
            in_training = images["split"][:] == 0
            train_count = groups.count(images["label"][:][in_training], images["attribute"][:][in_training])
            weight, bias = erm.head()
            seeds = retrained.read("head")
            fitted = {"erm": (weight[None], bias[None]), "mac": (seeds["weight"], seeds["bias"])}
            results = {
                name: {split: _metrics(features, split, *head, groups, train_count) for split in HELD_OUT} for name, head in fitted.items()
            }
            count = {split: groups.count(features[f"{split}/label"][:], features[f"{split}/attribute"][:]) for split in HELD_OUT}
    metrics = {
        "erm": {split: results["erm"][split][0] for split in HELD_OUT},
        "mac": {split: over_seeds(results["mac"][split]) for split in HELD_OUT},
        "count": {split: dict(zip(groups.names, count[split].tolist(), strict=True)) for split in HELD_OUT},
        "seeds": len(seeds["weight"]),
    }
    store.write_json(metrics_path, metrics)
    store.write_csv(plot_path, _plot_rows(metrics))
    return table(metrics)


def _metrics(
    features: Artefact, split: str, weight: NDArray[np.float32], bias: NDArray[np.float32], groups: Groups, train_count: NDArray[np.int64]
) -> list[dict[str, object]]:
    """Metrics of each of S heads, weight (S, C, D), bias (S, C)."""
    label, attribute = features[f"{split}/label"][:], features[f"{split}/attribute"][:]
    logits = Heads(torch.from_numpy(weight)[:, None], torch.from_numpy(bias)[:, None]).logits(
        torch.from_numpy(features[f"{split}/original"][:])
    )
    correct = logits[:, 0].argmax(-1) == torch.from_numpy(label)
    accuracy = group_accuracy(correct, torch.from_numpy(groups.index(label, attribute)), len(groups))
    count = torch.from_numpy(groups.count(label, attribute))
    return [as_dict(a, groups, count, torch.from_numpy(train_count)) for a in accuracy]


def _plot_rows(metrics: dict[str, Any]) -> list[dict[str, object]]:
    """A bar for every group and method: mean test accuracy over seeds, and its standard deviation."""
    rows: list[dict[str, object]] = []
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    for group in [*erm["groups"], "worst_group"]:
        before, after = (erm[group], mac[group]) if group == "worst_group" else (erm["groups"][group], mac["groups"][group])
        for method, accuracy, std in (("ERM", before, 0.0), ("MaC", after["mean"], after["std"])):
            rows.append({"bar": f"{group} ({method})", "group": group, "method": method, "accuracy": accuracy, "std": std})
    return rows


def table(metrics: dict[str, Any]) -> str:
    """The test metrics of metrics.json as text, in percent."""
    erm, mac, count, seeds = metrics["erm"]["test"], metrics["mac"]["test"], metrics["count"]["test"], metrics["seeds"]
    lines = [f"{'test accuracy, %':<34}{'n':>6}{'ERM':>9}{'MaC':>9}"]

    def line(name: str, n: int, before: float, after: dict[str, float]) -> str:
        spread = f" ± {100 * after['std']:.2f}" if seeds > 1 else ""
        return f"{name:<34}{n:>6}{100 * before:>9.2f}{100 * after['mean']:>9.2f}{spread}"

    total = sum(count.values())
    named = {"worst_group": "worst group", "raw_mean": "mean (raw)", "adjusted_mean": "mean (adjusted to training)"}
    lines += [line(name, total, erm[key], mac[key]) for key, name in named.items()]
    lines += [line(name, count[name], erm["groups"][name], mac["groups"][name]) for name in erm["groups"]]
    lines.append(f"MaC: mean ± standard deviation of {seeds} retrained heads" if seeds > 1 else "MaC: one retrained head")
    return "\n".join(lines)
