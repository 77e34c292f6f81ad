"""The report's figures, as SVG by matplotlib. Text stays text, so that browsers can show any script."""

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.errors import printable
from pipeline.steps.report.trade_offs import TradeOff

ERM, MAC = "#8a6d3b", "#1f6f8b"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mac",  # the same figure has the same bytes
    "text.parse_math": False,  # a class may be called $x$
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
}


@dataclass(frozen=True)
class Drawing:
    """A figure for the page.

    Attributes:
        uri: the SVG as a data URI.
        alt: what it shows, in words.
    """

    uri: str
    alt: str


@dataclass(frozen=True)
class Spoken:
    """What the worst and the mean accuracy on validation are, in words (`selection.SPOKEN`)."""

    worst: str
    mean: str


@contextmanager
def canvas(width: float, height: float, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `rows` panels, sizes in inches."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has the letters
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(np.atleast_1d(figure.subplots(rows, 1)))


def svg(figure: Figure) -> str:
    """A figure as SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return printable(buffer.getvalue().decode(), kept="\n\t")  # XML cannot hold terminal codes


def _drawing(figure: Figure, alt: str) -> Drawing:
    return Drawing("data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode(), alt)


def _percent(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """One value of each row, in percent."""
    return np.array([100 * row[key] for row in rows])


def group_bars(groups: Sequence[str], erm: Sequence[float], mac: Sequence[Mapping[str, float]]) -> Drawing:
    """Test accuracy of every group with ERM, and with MaC with its standard deviation over seeds.

    Args:
        erm: accuracy of each group, in [0, 1].
        mac: `mean` and `std` of each group, in [0, 1].
    """
    with canvas(4.8, 1.2 + 0.5 * len(groups)) as (figure, (axes,)):
        y = np.arange(len(groups))[::-1]
        mean, std = (_percent(mac, key) for key in ("mean", "std"))
        axes.barh(y + 0.2, 100 * np.array(erm), 0.38, color=ERM, label="ERM")
        axes.barh(y - 0.2, mean, 0.38, xerr=std, color=MAC, label="MaC", ecolor="#333333", capsize=3)
        axes.set_yticks(y, groups)
        axes.set_xlim(0, 100)
        axes.set_xlabel("test accuracy, %")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        said = []
        for group, before, after in zip(groups, erm, mean, strict=True):
            said.append(f"{group}: ERM {100 * before:.1f}, MaC {after:.1f}")
        return _drawing(figure, "Test accuracy by group, percent. " + "; ".join(said))


def sweep_maps(rows: Sequence[Mapping[str, Any]], spoken: Spoken) -> Drawing:
    """Worst accuracy for every α and β; validation above, test below (paper Figure 2).

    Args:
        rows: one for each pair, with `alpha`, `beta`, `val_worst`, `val_mean`, `test_worst` and `picked`; and
            one for ERM as it is, whose alpha and beta are None. If they have an `l2`, those are drawn that
            have the l2 of the best one.
        spoken: what `val_worst` is.
    """
    erm, pairs, l2 = _erm_and_pairs(rows)
    alphas, betas = sorted({row["alpha"] for row in pairs}), sorted({row["beta"] for row in pairs})
    picked = next(row for row in rows if row["picked"])
    star = None if picked is erm else (alphas.index(picked["alpha"]), betas.index(picked["beta"]))
    penalty = "" if l2 is None else f", l2 = {l2:g}"
    with canvas(1.1 + 0.6 * len(betas), 2 * (1 + 0.42 * len(alphas)), 2) as (figure, (upper, lower)):
        for axes, key, title in (
            (upper, "val_worst", "validation"),
            (lower, "test_worst", "test (shown)"),
        ):
            values = np.full((len(alphas), len(betas)), np.nan)
            for row in pairs:
                values[alphas.index(row["alpha"]), betas.index(row["beta"])] = 100 * row[key]
            _heat_map(axes, values, star)
            axes.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
            axes.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
            axes.set_xlabel("β (combined)")
            axes.set_ylabel("α (masked)")
            as_it_is = f"ERM as it is: {100 * erm[key]:.1f}{'*' if picked is erm else ''}"
            axes.set_title(f"{title}{penalty}\n{as_it_is}", fontsize=10)
        weights = f"alpha {picked['alpha']:g}, beta {picked['beta']:g}{penalty}" if star else "ERM as it is"
        alt = (
            f"Worst accuracy for every alpha and beta{penalty}; on validation: {spoken.worst}. "
            f"The sweep picks {weights}: {100 * picked['val_worst']:.1f} percent on validation, "
            f"{100 * picked['test_worst']:.1f} on test; ERM as it is has {100 * erm['val_worst']:.1f} "
            f"and {100 * erm['test_worst']:.1f}."
        )
        return _drawing(figure, alt)


def _erm_and_pairs(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], float | None]:
    """The row of ERM as it is; those of the pairs of α and β with the l2 of the best one; this l2, if any."""
    (erm,) = (row for row in rows if row["alpha"] is None)
    settings = [row for row in rows if row is not erm]
    picked = [row for row in settings if row["picked"]]
    best = picked[0] if picked else max(settings, key=lambda row: (row["val_worst"], row["val_mean"]))
    l2 = best.get("l2")
    return erm, [row for row in settings if row.get("l2") == l2], l2


def _heat_map(axes: Axes, values: np.ndarray[Any, Any], star: tuple[int, int] | None) -> None:
    """Numbers on colours; the number at `star` has an asterisk. A pair that was not tried (NaN) is empty."""
    axes.imshow(values, cmap="viridis", origin="lower", aspect="auto")
    axes.grid(visible=False)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for row, column in np.argwhere(~np.isnan(values)).tolist():
        value = values[row, column]
        text = f"{value:.1f}*" if (row, column) == star else f"{value:.1f}"
        colour = "black" if value > middle else "white"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def learning_curves(history: Sequence[Mapping[str, str]], spoken: Spoken) -> Drawing:
    """ERM's validation accuracy by epoch, worst and mean, by what chooses.

    Args:
        history: rows of history.csv.
        spoken: what `val_worst` and `val_mean` are.
    """
    epochs = [int(row["epoch"]) for row in history]
    with canvas(4.6, 2.8) as (figure, (axes,)):
        for key, label, colour in (("val_mean", spoken.mean, "#555555"), ("val_worst", "worst", ERM)):
            accuracy = [100 * float(row[key]) for row in history]
            axes.plot(epochs, accuracy, marker="o", markersize=3, color=colour, label=label)
        alt = f"ERM training, validation by epoch: {spoken.worst}, and {spoken.mean}"
        return _curves(figure, axes, alt, history)


def retraining_curves(history: Sequence[Mapping[str, str]], spoken: Spoken) -> Drawing:
    """The worst accuracy on validation of every fit, by epoch of retraining.

    Args:
        history: rows of history.csv, of all seeds.
        spoken: what `val_worst` is.
    """
    seeds = sorted({row["seed"] for row in history}, key=int)
    with canvas(4.6, 2.8) as (figure, (axes,)):
        for seed in seeds:
            of_seed = [row for row in history if row["seed"] == seed]
            epochs = [int(row["epoch"]) for row in of_seed]
            worst = [100 * float(row["val_worst"]) for row in of_seed]
            label = f"seed {seed}" if len(seeds) <= 8 else None
            axes.plot(epochs, worst, marker="o", markersize=3, linewidth=1, label=label)
        alt = f"Retraining, validation by epoch: {spoken.worst}"
        return _curves(figure, axes, f"{alt}, a line for each of {len(seeds)} fits", history)


def _curves(figure: Figure, axes: Axes, alt: str, history: Sequence[Mapping[str, str]]) -> Drawing:
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    last = max(history, key=lambda row: int(row["epoch"]))
    worst = 100 * float(last["val_worst"])
    return _drawing(figure, f"{alt}. In the last epoch, {last['epoch']}: worst {worst:.1f} percent.")


def confusion(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> Drawing:
    """The number of test images by true class and by the class that MaC predicts.

    Args:
        pairs: true class and predicted class of each image.
    """
    count = np.zeros((len(classes), len(classes)), int)
    for actual, seen in pairs:
        count[classes.index(actual), classes.index(seen)] += 1
    with canvas(2.2 + 0.9 * len(classes), 1.6 + 0.6 * len(classes)) as (figure, (axes,)):
        share = count / count.sum(1, keepdims=True).clip(1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), n in np.ndenumerate(count):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(n), ha="center", va="center", color=colour)
        axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("MaC sees")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        said = [f"{name}: {count[i, i]} of {count[i].sum()} right" for i, name in enumerate(classes)]
        return _drawing(figure, "Confusion matrix of MaC on the test split. " + "; ".join(said))


def differences(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """Paired differences of the mask ablation and their 95 % intervals, in points.

    Args:
        rows: one for each difference, with `name`, `mean`, `low` and `high`.
    """
    with canvas(4.8, 1 + 0.65 * len(rows)) as (figure, (axes,)):
        y = np.arange(len(rows))[::-1]
        mean, low, high = (_percent(rows, key) for key in ("mean", "low", "high"))
        axes.errorbar(mean, y, xerr=[mean - low, high - mean], fmt="o", color=MAC, capsize=4)
        axes.axvline(0, color="#555555", linewidth=1)
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(rows) - 0.3)
        axes.set_xlabel("difference in test worst-group accuracy, points")
        said = []
        for number, row in enumerate(rows):
            at = y[number] + 0.25
            axes.text(0, at, str(row["name"]), transform=axes.get_yaxis_transform(), fontsize=9)
            interval = f"{low[number]:+.1f} to {high[number]:+.1f}"
            said.append(f"{row['name']}: {mean[number]:+.1f} ({interval})")
        return _drawing(figure, "Mask ablation, paired differences. " + "; ".join(said))


def trade_offs(methods: Sequence[TradeOff]) -> Drawing:
    """The highest worst-group accuracy at every mean accuracy, of each method as its classes are scaled.

    The accuracies without scaling are points.
    """
    with canvas(6.4, 4.2) as (figure, (axes,)):
        shown = 100 * np.concatenate([[*method.envelope, method.at] for method in methods])
        (left, bottom), (right, top) = shown.min(0) - 2, shown.max(0) + 2
        said = []
        for number, method in enumerate(methods):
            colour = {"ERM": ERM, "MaC": MAC}.get(method.title, f"C{number % 10}")
            style = "-" if number < 10 else "--"
            width = 2.5 if method.title in ("ERM", "MaC") else 1.2
            mean, worst = 100 * method.envelope.T
            # Any lower mean is had by the first point, and a higher one than the last by none.
            x, y = np.array([left, *mean, mean[-1]]), np.array([worst[0], *worst, bottom])
            label = f"{method.title} {100 * method.coverage:.1f}"
            axes.step(x, y, style, where="pre", color=colour, linewidth=width, label=label)
            axes.plot(*(100 * method.at), marker="o", markersize=5, color=colour)
            said.append(label)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.set_xlabel("mean test accuracy, %")
        axes.set_ylabel("worst test accuracy, %")
        figure.legend(loc="outside right upper", frameon=False, fontsize=8, title="robust coverage, %")
        alt = "Worst against mean test accuracy of each method as its classes are scaled. Robust coverage: "
        return _drawing(figure, alt + "; ".join(said))
