"""Results as text: the tables that the stages and `mac inspect` print."""

from collections.abc import Mapping
from typing import Any

from pipeline.results import judgement
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
    lines.append(f"95 % interval of the {_spoken(worst)} over test sets (bootstrap): {', '.join(intervals)}")
    if seeds > 1:
        lines.append(f"MaC: mean ± standard deviation of {seeds} retrained heads")
    elif metrics["setting"]["alpha"] is not None:
        lines.append("MaC: one retrained head")
    lines.append(f"MaC: {reason or said(metrics['setting'])}")
    return "\n".join(lines)


def of_evaluation(metrics: Mapping[str, Any], reason: str = "") -> str:
    """What stage evaluate prints: the test metrics as `of_metrics` has them, and the diagnosis in words."""
    return f"{of_metrics(metrics, reason)}\n\n{_said(metrics['diagnosis'])}"


# What a diagnosis measures, and how it is named in a table.
VIEWS = {
    "original": "original",
    "core": "core only",
    "rest": "rest only",
    "own": "own class",
    "partner": "partner's",
    "neither": "neither",
    "swayed": "swayed",
}
VIEWS_NOTE = (
    "own class, partner's, neither: what ERM says of the core on a background of another class; "
    "swayed: right about the image, wrong about that"
)


def of_diagnosis(found: Mapping[str, Any]) -> str:
    """The diagnosis as text: ERM's answers on views of the validation images, in percent, and the verdict."""
    lines = []
    if found["images"]:
        views = {key: name for key, name in VIEWS.items() if key in found["all"]}
        titles = "".join(f"{name:>12}" for name in views.values())
        lines.append(f"{'ERM on validation, %':<24}{'n':>6}{titles}")
        for name, row in diagnosed(found).items():
            values = "".join(f"{100 * row[key]:>12.1f}" for key in views)
            ends = "".join(f"{ends_of(row, key):>12}" for key in views)
            lines += [f"{name:<24}{row.get('images', found['images']):>6}{values}", f"{'':<30}{ends}"]
        lines += [VIEWS_NOTE, basis(found)]
    return "\n".join([*lines, *blanks(found), "", _said(found)])


def diagnosed(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of the diagnosis' table, by name."""
    return {"all": found["all"], "classes alike": found["balanced"], **found["classes"]}


def basis(found: Mapping[str, Any]) -> str:
    """What the diagnosis' intervals are over."""
    draws = "one draw" if found["draws"] == 1 else f"the mean of {found['draws']} draws"
    return f"95 % intervals over validation images like these {found['images']}; one run of ERM, {draws}"


def blanks(found: Mapping[str, Any]) -> list[str]:
    """How many maps are blank, a line for each split."""
    lines = []
    for split, of_split in found["blank"].items():
        by_class = [f"{name} {each['count']}" for name, each in of_split["classes"].items()]
        said = f"{of_split['count']} ({100 * of_split['share']:.1f} %); {', '.join(by_class)}"
        lines.append(f"blank maps, {split}: {said}")
    return lines


def ends_of(row: Mapping[str, Any], key: str) -> str:
    """The ends of the interval of a share, in percent."""
    interval = row[f"{key}_interval"]
    return f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}"


def _said(diagnosis: Mapping[str, Any]) -> str:
    return f"{judgement.sentence(diagnosis)}\n{judgement.advice(diagnosis)}"


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
    columns["robust_coverage"] = "robust coverage"
    columns = {key: name for key, name in columns.items() if key in first}
    titles = "".join(f"{name:>16}" for name in columns.values())
    lines = [f"{'test accuracy, %':<24}{titles}  group labels seen"]
    for result in results:
        cells = [_cell(result["test"][key], result["seeds"] > 1) for key in columns]
        row = "".join(f"{cell:>16}" for cell in cells)
        lines.append(f"{result['title']:<24}{row}  {result['sign']} {result['labels']}")
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
    if with_l2 := "l2" in result["masks"][0]:
        lines[0] += f"{'l2':>6}"
    for row in result["masks"]:
        cells = "".join(f"{_cell(row['test'][key], True):>16}" for key in (worst, "raw_mean"))
        penalty = f"{row['l2']:>6g}" if with_l2 else ""
        lines.append(f"{row['name']:<44}{cells}{row['alpha']:>7g}{row['beta']:>6g}{penalty}")
    for row in result["differences"]:
        mean, low, high = (f"{100 * row[key]:+.2f}" for key in ("mean", "low", "high"))
        lines.append(f"{row['name']}: {mean} points (95 % {low} to {high})")
    lines.append(f"pairs of α and β are compared: {result['settings']}")
    return "\n".join(lines)


def worst_of(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """The keys of the lowest accuracy and of all accuracies in the result of `metrics.as_dict`.

    They are `worst_group` and `groups`, or `worst_class` and `classes` if groups are unknown.
    """
    return ("worst_group", "groups") if "worst_group" in metrics else ("worst_class", "classes")
