"""Results as text: the tables that stages print, and `mac inspect`."""

from collections.abc import Mapping
from typing import Any


def of_metrics(metrics: dict[str, Any]) -> str:
    """The test metrics of metrics.json as text, in percent."""
    erm, mac, count, seeds = metrics["erm"]["test"], metrics["mac"]["test"], metrics["count"]["test"], metrics["seeds"]
    lines = [f"{'test accuracy, %':<34}{'n':>6}{'ERM':>9}{'MaC':>9}"]

    def line(name: str, n: int, before: float, after: dict[str, float]) -> str:
        spread = f" ± {100 * after['std']:.2f}" if seeds > 1 else ""
        return f"{name:<34}{n:>6}{100 * before:>9.2f}{100 * after['mean']:>9.2f}{spread}"

    total = sum(count.values())
    worst, groups = worst_of(erm)
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


def of_baselines(found: dict[str, Any]) -> str:
    """The methods' test metrics in baselines.json as text, in percent."""
    results = found["methods"]
    first = next(iter(results.values()))["test"]
    worst, _ = worst_of(first)
    columns = {worst: worst.replace("_", " "), "raw_mean": "mean", "adjusted_mean": "adj. mean"}
    columns = {key: name for key, name in columns.items() if key in first}
    lines = [f"{'test accuracy, %':<24}" + "".join(f"{name:>16}" for name in columns.values()) + "  group labels seen"]
    for result in results.values():
        cells = [
            f"{100 * result['test'][key]['mean']:.2f}" + (f" ± {100 * result['test'][key]['std']:.2f}" if result["seeds"] > 1 else "")
            for key in columns
        ]
        lines.append(f"{result['title']:<24}" + "".join(f"{cell:>16}" for cell in cells) + f"  {result['sign']} {result['labels']}")
    lines += [f"{result['title']}: {result['note']}" for result in results.values() if result["note"]]
    lines += [f"{title} is left out: {reason}" for title, reason in found["left_out"].items()]
    return "\n".join(lines)


def of_ablation(result: Mapping[str, Any]) -> str:
    """The comparison of masks, the ablation's metrics.json, as text, in percent and points."""
    key, _ = worst_of(result["masks"][0]["test"])
    lines = [f"{'test accuracy, %':<44}{key.replace('_', ' '):>16}{'mean':>16}{'alpha':>7}{'beta':>6}"]
    for row in result["masks"]:
        cells = [f"{100 * row['test'][k]['mean']:.2f} ± {100 * row['test'][k]['std']:.2f}" for k in (key, "raw_mean")]
        lines.append(f"{row['name']:<44}{cells[0]:>16}{cells[1]:>16}{row['alpha']:>7g}{row['beta']:>6g}")
    for row in result["differences"]:
        lines.append(f"{row['name']}: {100 * row['mean']:+.2f} points (95 % {100 * row['low']:+.2f} to {100 * row['high']:+.2f})")
    return "\n".join(lines)


def worst_of(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """(`worst_group`, `groups`), or (`worst_class`, `classes`) where groups are unknown: the keys of `as_dict`."""
    return ("worst_group", "groups") if "worst_group" in metrics else ("worst_class", "classes")
