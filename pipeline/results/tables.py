"""Results as text: the tables that the stages and `mac inspect` print."""

from collections.abc import Mapping
from typing import Any

from pipeline.results.choice import said

# The names of the metrics that stand between the worst group and the groups in a table.
_NAMES = {
    "raw_mean": "mean (raw)",
    "adjusted_mean": "mean (adjusted to training)",
    "robust_coverage": "robust coverage",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "ece": "calibration error (ECE)",
}


def of_metrics(metrics: Mapping[str, Any], reason: str = "") -> str:
    """The test metrics in metrics.json as text, in percent.

    Args:
        reason: why MaC's heads have their setting (`choice.Choice`), if it is known.
    """
    erm, mac, count = metrics["erm"]["test"], metrics["mac"]["test"], metrics["count"]["test"]
    seeds = metrics["seeds"]
    worst, groups = worst_of(erm)
    lines = [f"{'test accuracy, %':<34}{'n':>6}{'ERM':>9}{'MaC':>9}"]

    def add(name: str, n: int, before: float, after: Mapping[str, float]) -> None:
        spread = f" ± {100 * after['std']:.2f}" if seeds > 1 else ""
        lines.append(f"{name:<34}{n:>6}{100 * before:>9.2f}{100 * after['mean']:>9.2f}{spread}")

    for key, name in {worst: _spoken(worst), **_NAMES}.items():
        if key in erm:
            add(name, sum(count.values()), erm[key], mac[key])
    for name in erm[groups]:
        add(name, count[name], erm[groups][name], mac[groups][name])
    empty = [name for name, n in count.items() if n == 0]
    if empty:
        lines.append(f"no test images of: {', '.join(empty)}")
    if worst == "worst_class":
        lines.append(
            "the spurious attribute is not known of all test images: worst class in place of worst group"
        )
    intervals = [_interval(name, found[f"{worst}_interval"]) for name, found in (("ERM", erm), ("MaC", mac))]
    lines.append(
        f"95 % interval of the {_spoken(worst)} over test images (bootstrap), for the heads of one ERM run: "
        f"{', '.join(intervals)}"
    )
    if seeds > 1:
        lines.append(f"MaC: mean ± standard deviation over {seeds} retrained heads of one ERM run")
    elif metrics["setting"]["alpha"] is not None:
        lines.append("MaC: one retrained head")
    lines.append(f"MaC: {reason or said(metrics['setting'])}")
    return "\n".join(lines)


def name_of(metric: str) -> str:
    """The name of a metric of `metrics.as_dict`, as tables have it."""
    return _NAMES.get(metric) or _spoken(metric)


def _spoken(key: str) -> str:
    return key.replace("_", " ")


def _interval(name: str, interval: Mapping[str, float]) -> str:
    return f"{name} {100 * interval['low']:.1f} to {100 * interval['high']:.1f}"


def of_baselines(found: Mapping[str, Any]) -> str:
    """The test metrics of all methods, from the metrics.json of baselines, as text, in percent."""
    results = found["methods"].values()
    first = next(iter(results))["test"]
    worst, _ = worst_of(first)
    columns = {worst: _spoken(worst), "raw_mean": "mean", "adjusted_mean": "adj. mean"}
    columns |= {"robust_coverage": "robust coverage", "auroc": "AUROC", "ece": "ECE"}
    columns = {key: name for key, name in columns.items() if key in first}
    titles = "".join(f"{name:>16}" for name in columns.values())
    lines = [f"{'test accuracy, %':<24}{titles}  group labels seen"]
    for result in results:
        cells = [_cell(result["test"][key], result["seeds"] > 1) for key in columns]
        row = "".join(f"{cell:>16}" for cell in cells)
        lines.append(f"{result['title']:<24}{row}  {result['sign']} {result['labels']}")
    if any(result["seeds"] > 1 for result in results):
        lines.append("±: standard deviation over the heads of one ERM run; without ±: one head")
    lines += [f"{result['title']}: {result['note']}" for result in results if result["note"]]
    lines += [f"{left['title']} is left out: {left['reason']}" for left in found["left_out"].values()]
    return "\n".join(lines)


def _cell(value: Mapping[str, float], spread: bool) -> str:
    """A mean in percent, with its standard deviation if `spread`."""
    deviation = f" ± {100 * value['std']:.2f}" if spread else ""
    return f"{100 * value['mean']:.2f}{deviation}"


def of_ablation(result: Mapping[str, Any]) -> str:
    """The comparison of masks, from the metrics.json of ablation, as text, in percent and points."""
    worst, _ = worst_of(result["masks"][0]["test"])
    lines = [f"{'test accuracy, %':<44}{_spoken(worst):>16}{'mean':>16}{'alpha':>7}{'beta':>6}"]
    picked = "α and β"
    if with_l2 := "l2" in result["masks"][0]:
        lines[0] += f"{'l2':>6}"
        picked = "α, β and l2"
    for row in result["masks"]:
        cells = "".join(f"{_cell(row['test'][key], True):>16}" for key in (worst, "raw_mean"))
        penalty = f"{row['l2']:>6g}" if with_l2 else ""
        lines.append(f"{row['name']:<44}{cells}{row['alpha']:>7g}{row['beta']:>6g}{penalty}")
    for row in result["differences"]:
        mean, low, high = (f"{100 * row[key]:+.2f}" for key in ("mean", "low", "high"))
        lines.append(f"{row['name']}: {mean} points (95 % {low} to {high})")
    lines.append("± and 95 % intervals (Student's t, paired): over the heads of one ERM run")
    lines.append(f"{picked}: {result['settings']}")
    return "\n".join(lines)


def worst_of(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """The keys of the lowest accuracy and of all accuracies in the result of `metrics.as_dict`.

    They are `worst_group` and `groups`, or `worst_class` and `classes` if groups are unknown.
    """
    return ("worst_group", "groups") if "worst_group" in metrics else ("worst_class", "classes")
