"""Stage evaluate: ERM and MaC side by side on the test split, and MaC against the other methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.compute.context import Context
from pipeline.project import Opened
from pipeline.results import evaluation
from pipeline.results.choice import Choice
from pipeline.results.diagnosis import diagnose
from pipeline.results.paired import compared
from pipeline.results.scores import head_scores
from pipeline.results.tables import worst_of

HELD_OUT = ("val", "test")


def evaluate(given: Opened, metrics_out: Path, plots_out: Path, context: Context) -> str:
    """Write metrics.json and the folder of plot data; return the verdict and the tables to print.

    The folder has groups.csv, with a row for each bar in the plot of accuracy by group, and confusion.csv.

    Args:
        given: images, erm, masks, features, retrained and baselines.
    """
    metrics, confusion = whole(given)
    with store.create_folder(plots_out) as folder:
        store.write_csv(folder / "groups.csv", _for_a_script(_bars(metrics)))
        store.write_csv(folder / "confusion.csv", _for_a_script(confusion))
        store.write_json(metrics_out, metrics)  # last, so that an error leaves both as they were
    return evaluation.in_words(metrics, Choice.of_retrained(given).reason)


def _for_a_script(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows whose text cannot end a script: DVC puts them into the script of its page as they are."""
    found = []
    for row in rows:
        found.append({key: v.replace("<", "‹") if isinstance(v, str) else v for key, v in row.items()})
    return found


def whole(given: Opened) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """All of metrics.json: of `measure`, the diagnosis, and of `paired.compared`; and the confusion.

    Args:
        given: images, erm, masks, features, retrained and baselines; and all or none of the whole networks.
    """
    metrics, confusion = measure(given)
    diagnosis = {**diagnose(given), "convergence": given.metrics("baselines")["convergence"]}
    return {**metrics, "diagnosis": diagnosis, **compared(given, metrics)}, confusion


def measure(given: Opened) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """ERM and MaC on the validation and the test split.

    Args:
        given: images, erm, features and retrained.

    Returns:
        The metrics of `scores.scores`: `erm.<split>.<metric>` are numbers, `mac.<split>.<metric>` are
        `{mean, std}` over MaC's heads. `count.<split>.<group>` is the number of images, `seeds` the number
        of MaC's heads, `setting` their α and β (None for ERM as it is), l2 if it was picked,
        and what chose them.
        The confusion, a row for each test image: `actual` is its class, `predicted` the class by MaC's head
        that validation prefers.
    """
    erm, mac = given.model("erm").head(), given.model("retrained").heads()
    metrics = {
        "erm": {split: _only_means(head_scores(given, erm, split)) for split in HELD_OUT},
        "mac": {split: head_scores(given, mac, split) for split in HELD_OUT},
        "count": {split: _counts(given, split) for split in HELD_OUT},
        "seeds": len(mac),
        "setting": Choice.of_retrained(given).values,
    }
    return metrics, _confusion(given)


def _counts(given: Opened, split: str) -> dict[str, int]:
    grouping = given.grouping(split)
    return dict(zip(grouping.names, grouping.count.tolist(), strict=True))


def _confusion(given: Opened) -> list[dict[str, str]]:
    features, classes = given.file("features"), given.groups.classes
    seen = given.model("retrained").head().logits(features["test/original"][:])[0].argmax(-1)
    rows = []
    for actual, predicted in zip(features["test/label"][:], seen, strict=True):
        rows.append({"actual": classes[int(actual)], "predicted": classes[int(predicted)]})
    return rows


def _only_means(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one head, with the value instead of each `{mean, std}`."""
    found: dict[str, Any] = {}
    for key, value in metrics.items():
        if not isinstance(value, dict):
            found[key] = value
        elif set(value) == {"mean", "std"}:
            found[key] = value["mean"]
        else:
            found[key] = _only_means(value)
    return found


def _bars(metrics: dict[str, Any]) -> list[dict[str, object]]:
    """A row for every group and method: mean test accuracy over the seeds, and its standard deviation."""
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    worst, groups = worst_of(erm)
    pairs = {group: (erm[groups][group], mac[groups][group]) for group in erm[groups]}
    pairs[worst] = (erm[worst], mac[worst])
    rows: list[dict[str, object]] = []
    for group, (before, after) in pairs.items():
        rows.append(_bar(group, "ERM", before, 0.0))
        rows.append(_bar(group, "MaC", after["mean"], after["std"]))
    return rows


def _bar(group: str, method: str, accuracy: float, std: float) -> dict[str, object]:
    bar = f"{group} ({method})"
    return {"bar": bar, "group": group, "method": method, "accuracy": accuracy, "std": std}
