"""Stage evaluate: ERM and MaC side by side on the test split."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.heads import Heads
from pipeline.metrics import Grouping, Groups, as_dict, group_accuracy, over_seeds
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
            groups = Groups.of(images)
            in_training = images["split"][:] == 0
            training = groups.grouping(images["label"][:][in_training], images["attribute"][:][in_training])
            held_out = {split: groups.grouping(features[f"{split}/label"][:], features[f"{split}/attribute"][:]) for split in HELD_OUT}
            weight, bias = erm.head()
            seeds = retrained.read("head")
            fitted = {"erm": (weight[None], bias[None]), "mac": (seeds["weight"], seeds["bias"])}
            results = {
                name: {split: _metrics(features, split, *head, held_out[split], training) for split in HELD_OUT}
                for name, head in fitted.items()
            }
    metrics = {
        "erm": {split: results["erm"][split][0] for split in HELD_OUT},
        "mac": {split: over_seeds(results["mac"][split]) for split in HELD_OUT},
        "count": {split: dict(zip(held_out[split].names, held_out[split].count.tolist(), strict=True)) for split in HELD_OUT},
        "seeds": len(seeds["weight"]),
    }
    store.write_json(metrics_path, metrics)
    store.write_csv(plot_path, _plot_rows(metrics))
    return table(metrics)


def _metrics(
    features: Artefact, split: str, weight: NDArray[np.float32], bias: NDArray[np.float32], grouping: Grouping, training: Grouping
) -> list[dict[str, object]]:
    """Metrics of each of S heads, weight (S, C, D), bias (S, C)."""
    logits = Heads(torch.from_numpy(weight)[:, None], torch.from_numpy(bias)[:, None]).logits(
        torch.from_numpy(features[f"{split}/original"][:])
    )
    correct = logits[:, 0].argmax(-1) == torch.from_numpy(features[f"{split}/label"][:])
    accuracy = group_accuracy(correct, torch.from_numpy(grouping.index), len(grouping.names))
    return [as_dict(a, grouping, training) for a in accuracy]


def _kind(metrics: dict[str, Any]) -> tuple[str, str]:
    """(`worst_group`, `groups`), or (`worst_class`, `classes`) where groups are unknown: the keys of `as_dict`."""
    return ("worst_group", "groups") if "groups" in metrics else ("worst_class", "classes")


def _plot_rows(metrics: dict[str, Any]) -> list[dict[str, object]]:
    """A bar for every group and method: mean test accuracy over seeds, and its standard deviation."""
    rows: list[dict[str, object]] = []
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    worst, groups = _kind(erm)
    for group in [*erm[groups], worst]:
        before, after = (erm[group], mac[group]) if group == worst else (erm[groups][group], mac[groups][group])
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
    worst, groups = _kind(erm)
    named = {worst: worst.replace("_", " "), "raw_mean": "mean (raw)", "adjusted_mean": "mean (adjusted to training)"}
    lines += [line(name, total, erm[key], mac[key]) for key, name in named.items() if key in erm]
    lines += [line(name, count[name], erm[groups][name], mac[groups][name]) for name in erm[groups]]
    empty = [name for name, n in count.items() if n == 0]
    if empty:
        lines.append(f"no test images of: {', '.join(empty)}")
    if worst == "worst_class":
        lines.append("the spurious attribute is not known of all test images: worst class in place of worst group")
    lines.append(f"MaC: mean ± standard deviation of {seeds} retrained heads" if seeds > 1 else "MaC: one retrained head")
    return "\n".join(lines)
