"""The report's figures. Numbers that are shown as a grid are tables, with a colour in each cell."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.steps.report.charts import ERM, MAC, SERIES, Chart, Drawing, Scale
from pipeline.steps.report.trade_offs import TradeOff

MOST = 12  # groups or classes that can be seen at once
_WIDTH = 400  # pixels, so that text can be read on a phone


@dataclass(frozen=True)
class Spoken:
    """What the worst and the mean accuracy on validation are, in words (`selection.SPOKEN`)."""

    worst: str
    mean: str


@dataclass(frozen=True)
class Confusion:
    """The number of test images by true class and by the class that MaC predicts.

    Attributes:
        count: (C, C) int, `share` of the true class in [0, 1].
        often: of many classes those that are taken for another the most often: true class, seen class, number
            of images, and images of the true class; then there is no `count`.
        alt: what it shows, in words.
    """

    classes: Sequence[str]
    count: list[list[int]]
    share: list[list[float]]
    often: list[tuple[str, str, int, int]]
    alt: str


def lowest(*values: Sequence[float]) -> list[int]:
    """The places of the lowest, `MOST` at most, by the lowest value of each place; in their order."""
    lower = np.fmin.reduce(np.array(values, float))  # what is not a number is the last
    return sorted(np.argsort(lower, kind="stable")[:MOST].tolist())


def group_bars(groups: Sequence[str], erm: Sequence[float], mac: Sequence[Mapping[str, float]]) -> Drawing:
    """Test accuracy of every group with ERM, and with MaC with its standard deviation over seeds.

    Args:
        erm: accuracy of each group, in [0, 1].
        mac: `mean` and `std` of each group, in [0, 1].
    """
    said = []
    for group, before, after in zip(groups, erm, mac, strict=True):
        said.append(f"{group}: ERM {100 * before:.1f}, MaC {100 * after['mean']:.1f}")
    row = 56
    bottom = row * len(groups)
    chart = Chart(_WIDTH, bottom + 38, "Test accuracy by group, percent. " + "; ".join(said))
    x = Scale(0, 100, 4, _WIDTH - 45)
    chart.x_axis(x, 0, bottom, "test accuracy, %")
    for place, (group, before, after) in enumerate(zip(groups, erm, mac, strict=True)):
        top = row * place
        chart.text(3, top + 14, group, "strong")
        mean, std = 100 * after["mean"], 100 * after["std"]
        for y, value, end, colour in ((19, 100 * before, 0.0, ERM), (34, mean, std, MAC)):
            if np.isfinite(value):
                chart.bar(x(0), x(value), top + y, 13, f"bar {colour}")
                chart.text(x(min(value + end, 100)) + 6, top + y + 11, f"{value:.1f}")
        if std > 0:
            low, high = x(mean - std), x(min(mean + std, 100))
            chart.line(low, top + 40.5, high, top + 40.5, "whisker")
            for end in (low, high):
                chart.line(end, top + 37, end, top + 44, "whisker")
    return chart.drawn([("ERM", ERM), ("MaC", MAC)])


def learning_curves(history: Sequence[Mapping[str, Any]], spoken: Spoken) -> Drawing:
    """ERM's validation accuracy by epoch, worst and mean, by what chooses.

    Args:
        history: rows of history.csv.
        spoken: what `val_worst` and `val_mean` are.
    """
    alt = f"ERM training, validation by epoch: {spoken.worst}, and {spoken.mean}"
    chart, x, y = _epochs(alt, history, ("val_worst", "val_mean"))
    for key, colour in (("val_mean", SERIES[6]), ("val_worst", ERM)):
        points = [(x(row["epoch"]), y(100 * row[key])) for row in history if np.isfinite(row[key])]
        chart.path(points, f"stroke {colour}")
        for at in points:
            chart.dot(*at, 2.5, f"dot {colour}")
    return chart.drawn([(spoken.worst, ERM), (spoken.mean, SERIES[6])])


def retraining_curves(history: Sequence[Mapping[str, Any]], spoken: Spoken) -> Drawing:
    """The worst accuracy on validation by epoch of retraining: the median of all fits, and bands.

    Half of the fits are in the darker band, all of them in the lighter one.

    Args:
        history: rows of history.csv, of all seeds.
        spoken: what `val_worst` is.
    """
    by_epoch = defaultdict(list)
    for row in history:
        by_epoch[row["epoch"]].append(100 * row["val_worst"])
    epochs, fits = sorted(by_epoch), len({row["seed"] for row in history})
    alt = f"Retraining, validation by epoch: {spoken.worst}, the median of {fits} fits and where all are"
    chart, x, y = _epochs(alt, history, ("val_worst",))
    at = np.array([np.quantile(by_epoch[epoch], (0, 0.25, 0.5, 0.75, 1)) for epoch in epochs])
    across = [x(epoch) for epoch in epochs]
    for low, high in ((0, 4), (1, 3)):
        upper = list(zip(across, map(y, at[:, high]), strict=True))
        lower = list(zip(across, map(y, at[:, low]), strict=True))
        chart.path([*upper, *reversed(lower)], f"faint {MAC}")
    middle = list(zip(across, map(y, at[:, 2]), strict=True))
    chart.path(middle, f"stroke thick {MAC}")
    for each in middle:
        chart.dot(*each, 3, f"dot {MAC}")
    return chart.drawn([(f"median of {fits} fits; half of them in the darker band, all in the lighter", MAC)])


def _epochs(
    alt: str, history: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> tuple[Chart, Scale, Scale]:
    """A chart by epoch, and its scales."""
    last = max(history, key=lambda row: int(row["epoch"]))
    alt += f". In the last epoch, {last['epoch']}: worst {100 * last['val_worst']:.1f} percent."
    height = 270
    chart = Chart(_WIDTH, height, alt)
    values = np.concatenate([_percent(history, key) for key in keys])
    y = Scale(max(float(np.nanmin(values)) - 3, 0), min(float(np.nanmax(values)) + 3, 100), height - 42, 24)
    epochs = [row["epoch"] for row in history]
    x = Scale(min(epochs), max(epochs), 40, _WIDTH - 10)
    chart.x_axis(x, y.end, y.start, "epoch", step=1)
    chart.y_axis(y, 34, _WIDTH, "validation accuracy, %")
    return chart, x, y


def _percent(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """One value of each row, in percent."""
    return np.array([100 * row[key] for row in rows])


def confusion(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> Confusion:
    """The test images by class.

    Args:
        pairs: true class and predicted class of each image.
    """
    count = np.zeros((len(classes), len(classes)), int)
    for actual, seen in pairs:
        count[classes.index(actual), classes.index(seen)] += 1
    of_class = count.sum(1)
    if len(classes) > MOST:
        wrong = np.where(np.eye(len(classes), dtype=bool), 0, count)
        places = np.argsort(-wrong, axis=None, kind="stable")[:MOST]
        often = []
        for i, j in zip(*np.unravel_index(places, wrong.shape), strict=True):
            if wrong[i, j]:
                often.append((classes[i], classes[j], int(wrong[i, j]), int(of_class[i])))
        alt = f"The classes that MaC takes for another the most often, of {len(classes)}, on the test split"
        return Confusion(classes, [], [], often, alt)
    share = count / of_class[:, None].clip(1)
    said = [f"{name}: {count[i, i]} of {of_class[i]} right" for i, name in enumerate(classes)]
    alt = "Confusion matrix of MaC on the test split. " + "; ".join(said)
    return Confusion(classes, count.tolist(), share.tolist(), [], alt)


def differences(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """Paired differences of the mask ablation and their 95 % intervals, in points.

    Args:
        rows: one for each difference, with `name`, `mean`, `low` and `high`.
    """
    ends = np.stack([_percent(rows, key) for key in ("mean", "low", "high")], axis=1)
    said = []
    for row, (mean, low, high) in zip(rows, ends, strict=True):
        said.append(f"{row['name']}: {mean:+.1f} ({low:+.1f} to {high:+.1f})")
    height = 44
    bottom = height * len(rows) + 4
    chart = Chart(_WIDTH, bottom + 38, "Mask ablation, paired differences. " + "; ".join(said))
    shown = np.array([0.0, *np.ravel(ends)])
    x = Scale(float(shown.min()) - 1, float(shown.max()) + 1, 10, _WIDTH - 10)
    chart.x_axis(x, 0, bottom, "difference in test worst-group accuracy, points")
    chart.line(x(0), 0, x(0), bottom, "zero")
    for place, (row, (mean, low, high)) in enumerate(zip(rows, ends, strict=True)):
        y = height * place + 31
        chart.text(3, y - 16, str(row["name"]), "")
        chart.line(x(low), y, x(high), y, f"stroke {MAC}")
        for end in (low, high):
            chart.line(x(end), y - 4, x(end), y + 4, f"stroke {MAC}")
        chart.dot(x(mean), y, 4, f"dot {MAC}")
    return chart.drawn()


def trade_offs(methods: Sequence[TradeOff]) -> Drawing:
    """The highest worst-group accuracy at every mean accuracy, of each method as its classes are scaled.

    The accuracies without scaling are points. ERM and MaC are on top; methods that train on group labels are
    dashed.

    Args:
        methods: ERM, MaC, and at most as many others as there are SERIES.
    """
    labels = [f"{method.title} {100 * method.coverage:.1f}" for method in methods]
    alt = "Worst against mean test accuracy of each method as its classes are scaled. Robust coverage: "
    chart = Chart(420, 310, alt + "; ".join(labels))
    shown: NDArray[np.float64] = 100 * np.concatenate([[*method.envelope, method.at] for method in methods])
    (left, bottom), (right, top) = shown.min(0) - 2, shown.max(0) + 2
    x, y = Scale(left, right, 36, 412), Scale(bottom, top, 268, 24)
    chart.x_axis(x, 24, 268, "mean test accuracy, %")
    chart.y_axis(y, 36, 412, "worst test accuracy, %")
    colours = (ERM, MAC, *SERIES)[: len(methods)]
    for method, colour in reversed(list(zip(methods, colours, strict=True))):
        named = colour in (ERM, MAC)
        style = "thick" if named else "dashed" if method.trained else ""
        # Any lower mean is had by the first point, and a higher one than the last by none.
        points = [(x(left), y(100 * method.envelope[0, 1]))]
        for mean, worst in 100 * method.envelope:
            points += [(points[-1][0], y(worst)), (x(mean), y(worst))]
        points.append((points[-1][0], y(bottom)))
        chart.path(list(dict.fromkeys(points)), f"stroke {style} {colour}")
        mean, worst = 100 * method.at
        chart.dot(x(mean), y(worst), 5 if named else 3.5, f"dot {colour}")
    return chart.drawn(list(zip(labels, colours, strict=True)))
