"""MaC minus each other method on the test split, paired: both answer the same images."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.metrics import Grouping
from pipeline.project import Opened
from pipeline.results.scores import answers, basic_interval, resampled_worst
from pipeline.results.tables import worst_of
from pipeline.results.verdict import ERM, WHOLE_NETWORK, Difference, best_other
from pipeline.store import FittedHeads


def compared(given: Opened, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """MaC minus ERM and every other method, for metrics.json.

    Args:
        given: erm, features, retrained and baselines; and all or none of WHOLE_NETWORK.
        metrics: of `steps.evaluate.measure`.

    Returns:
        `compared.<name>`: the `Difference` to ERM, to each method of baselines, and to the whole networks, by
        name. `best_other`: the name of the best one that sees no more group labels; None if there is none.

    Raises:
        MacError: a logit is not finite; or as `others`.
    """
    features, grouping = given.file("features"), given.grouping("test")
    x, label = features["test/original"][:], features["test/label"][:]
    rows = others(given, metrics)
    mac = answers(given.model("retrained").heads().logits(x)) == label
    found = {}
    for name, seen in _answers(given, x):
        title = "ERM" if name == ERM else rows[name]["title"]
        found[name] = asdict(difference(title, mac, seen == label, grouping))
    labels, (worst, _) = given.stated("retrained", "labels"), worst_of(metrics["erm"]["test"])
    return {"compared": found, "best_other": best_other(rows, labels, worst)}


def others(given: Opened, metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the other methods, by name: of baselines, and of the whole networks that are given.

    Raises:
        MacError: a table cannot be read, or was measured by other groups than `metrics`.
    """
    found: dict[str, dict[str, Any]] = dict(given.metrics("baselines")["methods"])
    found |= {name: given.metrics(name) for name in WHOLE_NETWORK if name in given}
    erm = metrics["erm"]["test"]
    needed = [key for key in (worst_of(erm)[0], "adjusted_mean", "auroc") if key in erm]
    for name, row in found.items():
        if lacking := [key for key in needed if key not in row["test"]]:
            kind = given.project.kinds[name if name in WHOLE_NETWORK else "baselines"]
            raise MacError(
                f"{given.project.path(kind.name)}: the results of {row['title']} have no "
                f"{', '.join(lacking)}, and so belong to other images; {kind.remedy} again"
            )
    return found


def difference(
    title: str, mac: NDArray[np.bool_], other: NDArray[np.bool_], grouping: Grouping
) -> Difference:
    """MaC minus another method, and the 95 % bootstrap interval over test images of its worst group.

    Images are resampled within each group (`scores.resampled_worst`), the same ones for both methods. The
    worst-group accuracies of the heads of each are averaged. The interval is the basic one
    (`scores.basic_interval`). The percentiles themselves would count it against a method that its groups are
    even: of 400 simulated pairs of equally good methods, one with four even groups of 250 images and one with
    one bad group, they called the even one worse in 21 %, the basic interval in 7 %.

    Args:
        title: the name of the other method.
        mac: (S, N) bool, whether each head of MaC is right about each image.
        other: (T, N) bool, the same of the other method.
        grouping: the groups of the N images.
    """
    (worst_mac, mean_mac), (worst_other, mean_other) = (_over_heads(grouping, each) for each in (mac, other))
    lowest = resampled_worst(np.concatenate([mac, other]), grouping.index)
    resampled = lowest[:, : len(mac)].mean(1) - lowest[:, len(mac) :].mean(1)
    here = worst_mac - worst_other
    low, high = basic_interval(here, resampled, least=-1.0)
    return Difference(title, here, low, high, mean_accuracy=mean_mac - mean_other)


def _over_heads(grouping: Grouping, right: NDArray[np.bool_]) -> tuple[float, float]:
    """The worst-group and the mean accuracy, each the mean over the heads, (S, N) bool."""
    worst, mean = grouping.scores(grouping.accuracy(right))
    return float(worst.mean()), float(mean.mean())


def _answers(given: Opened, x: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The name of each other method, and the answers of its heads on the test split, (S, N); ERM first.

    Args:
        x: (N, D), the features of the test split.
    """
    yield ERM, answers(given.model("erm").head().logits(x))
    tensors = given.model("baselines").read()
    for name in given.metrics("baselines")["methods"]:
        if name != ERM:
            heads = FittedHeads.of(tensors, name)
            yield name, answers(heads.logits(x))
    for name in WHOLE_NETWORK:
        if name in given:
            yield name, given.model(name).read("answers")["test"]
