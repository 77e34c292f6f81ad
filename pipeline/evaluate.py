"""Stage evaluate: ERM and MaC side by side on the test split."""

from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.metrics import Groups
from pipeline.results.scores import head_logits, head_scores

HELD_OUT = ("val", "test")


def evaluate(images_path: Path, features_path: Path, erm_path: Path, retrained_path: Path, metrics_path: Path, plots_path: Path) -> str:
    """Write metrics.json and the folder of plot data; return the table to print.

    The plots' folder has groups.csv, a bar a group and method, and confusion.csv.
    """
    metrics, confusion = measure(images_path, features_path, erm_path, retrained_path)
    store.write_json(metrics_path, metrics)
    with store.create_folder(plots_path) as folder:
        store.write_csv(folder / "groups.csv", _plot_rows(metrics))
        store.write_csv(folder / "confusion.csv", confusion)
    return table(metrics)


def measure(images_path: Path, features_path: Path, erm_path: Path, retrained_path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """ERM and MaC on the validation and the test split.

    Returns:
        The metrics: `erm.<split>.<metric>` and `mac.<split>.<metric>.{mean, std}` over the retraining seeds, with the metrics of
        `scores.scores`; `count.<split>.<group>`; `seeds`. And the confusion: a row a test image with its class and the class
        that the chosen MaC head sees in it.
    """
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(features_path, "features", {"images": images.digest, "erm": erm.digest}) as features:
            retrained = store.open_model(retrained_path, "retrained", {"features": features.digest, "erm": erm.digest})
            groups = Groups.of(images)
            in_training = images["split"][:] == 0
            training = groups.grouping(images["label"][:][in_training], images["attribute"][:][in_training])
            held_out = {split: groups.grouping(features[f"{split}/label"][:], features[f"{split}/attribute"][:]) for split in HELD_OUT}
            seeds = retrained.read("head")
            weight, bias = erm.head()
            heads = {"erm": (weight[None], bias[None]), "mac": (seeds["weight"], seeds["bias"])}
            results = {
                name: {split: head_scores(features, split, *fitted, training) for split in HELD_OUT} for name, fitted in heads.items()
            }
            chosen = head_logits(features["test/original"][:], *retrained.head()).argmax(-1)
            pairs = zip(features["test/label"][:], chosen, strict=True)
            confusion = [{"actual": groups.classes[int(actual)], "predicted": groups.classes[int(seen)]} for actual, seen in pairs]
    metrics = {
        "erm": {split: only_means(results["erm"][split]) for split in HELD_OUT},
        "mac": results["mac"],
        "count": {split: dict(zip(held_out[split].names, held_out[split].count.tolist(), strict=True)) for split in HELD_OUT},
        "seeds": len(seeds["weight"]),
    }
    return metrics, confusion


def only_means(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one head, without their spread."""
    return {
        key: (value["mean"] if set(value) == {"mean", "std"} else only_means(value)) if isinstance(value, dict) else value
        for key, value in metrics.items()
    }


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
    named |= {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "ece": "calibration error (ECE)"}
    lines += [line(name, total, erm[key], mac[key]) for key, name in named.items() if key in erm]
    lines += [line(name, count[name], erm[groups][name], mac[groups][name]) for name in erm[groups]]
    empty = [name for name, n in count.items() if n == 0]
    if empty:
        lines.append(f"no test images of: {', '.join(empty)}")
    if worst == "worst_class":
        lines.append("the spurious attribute is not known of all test images: worst class in place of worst group")
    intervals = (
        f"{name} {100 * m[f'{worst}_interval']['low']:.1f} to {100 * m[f'{worst}_interval']['high']:.1f}"
        for name, m in (("ERM", erm), ("MaC", mac))
    )
    lines.append(f"95 % interval of the {worst.replace('_', ' ')} over test sets (bootstrap): {', '.join(intervals)}")
    lines.append(f"MaC: mean ± standard deviation of {seeds} retrained heads" if seeds > 1 else "MaC: one retrained head")
    return "\n".join(lines)
