"""The report's figures, drawn by matplotlib as SVG with text left as text, so that any script's letters are shown."""

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
class Picture:
    """A picture for the page: a data URI and what it shows in words."""

    uri: str
    alt: str


@contextmanager
def _figure(width: float, height: float, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has the letters
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(np.atleast_1d(figure.subplots(rows, 1)))


def _picture(figure: Figure, alt: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Picture("data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode(), alt)


def group_bars(groups: Sequence[str], erm: Sequence[float], mac: Sequence[Mapping[str, float]]) -> Picture:
    """Test accuracy of every group by ERM and by MaC with its deviation over seeds."""
    with _figure(4.8, 1.2 + 0.5 * len(groups)) as (figure, (axes,)):
        y = np.arange(len(groups))[::-1]
        axes.barh(y + 0.2, [100 * value for value in erm], 0.38, color=ERM, label="ERM")
        spread = [100 * value["std"] for value in mac]
        axes.barh(y - 0.2, [100 * value["mean"] for value in mac], 0.38, xerr=spread, color=MAC, label="MaC", ecolor="#333333", capsize=3)
        axes.set_yticks(y, groups)
        axes.set_xlim(0, 100)
        axes.set_xlabel("test accuracy, %")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        said = (f"{g}: ERM {100 * e:.1f}, MaC {100 * m['mean']:.1f}" for g, e, m in zip(groups, erm, mac, strict=True))
        return _picture(figure, "Test accuracy by group, percent. " + "; ".join(said))


def sweep_maps(rows: Sequence[Mapping[str, float]]) -> Picture:
    """Worst-group accuracy over α and β, validation above test (paper Figure 2)."""
    alphas, betas = (sorted({row[name] for row in rows}) for name in ("alpha", "beta"))
    picked = next(row for row in rows if row["picked"])
    with _figure(1.1 + 0.6 * len(betas), 2 * (0.8 + 0.42 * len(alphas)), 2) as (figure, panels):
        for axes, key, title in zip(panels, ("val_worst", "test_worst"), ("validation (picks)", "test (shown)"), strict=True):
            values = np.full((len(alphas), len(betas)), np.nan)
            for row in rows:
                values[alphas.index(row["alpha"]), betas.index(row["beta"])] = 100 * row[key]
            axes.imshow(values, cmap="viridis", origin="lower", aspect="auto")
            middle = (np.nanmin(values) + np.nanmax(values)) / 2
            for (a, b), value in np.ndenumerate(values):
                star = "*" if (alphas[a], betas[b]) == (picked["alpha"], picked["beta"]) else ""
                axes.text(b, a, f"{value:.1f}{star}", ha="center", va="center", fontsize=8, color="black" if value > middle else "white")
            axes.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
            axes.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
            axes.set_xlabel("β (combined)")
            axes.set_ylabel("α (masked)")
            axes.set_title(title, fontsize=10)
            axes.grid(visible=False)
        alt = (
            f"Worst-group accuracy for every alpha and beta. Validation picks alpha {picked['alpha']:g}, beta {picked['beta']:g}: "
            f"{100 * picked['val_worst']:.1f} percent on validation, {100 * picked['test_worst']:.1f} on test."
        )
        return _picture(figure, alt)


def learning_curves(history: Sequence[Mapping[str, str]]) -> Picture:
    """ERM's validation accuracy, worst and mean, by epoch."""
    epochs = [int(row["epoch"]) for row in history]
    with _figure(4.6, 2.8) as (figure, (axes,)):
        for key, label, colour in (("val_mean", "mean", "#555555"), ("val_worst", "worst", ERM)):
            axes.plot(epochs, [100 * float(row[key]) for row in history], marker="o", markersize=3, color=colour, label=label)
        return _curves(figure, axes, "ERM training: validation accuracy by epoch, worst and mean", history)


def retraining_curves(history: Sequence[Mapping[str, str]]) -> Picture:
    """Validation worst group of every fit by epoch of retraining."""
    with _figure(4.6, 2.8) as (figure, (axes,)):
        seeds = sorted({row["seed"] for row in history}, key=int)
        for seed in seeds:
            of_seed = [row for row in history if row["seed"] == seed]
            epochs, worst = [int(row["epoch"]) for row in of_seed], [100 * float(row["val_worst"]) for row in of_seed]
            axes.plot(epochs, worst, marker="o", markersize=3, linewidth=1, label=f"seed {seed}" if len(seeds) <= 8 else None)
        return _curves(figure, axes, f"Retraining: validation worst-group accuracy by epoch, a line for each of {len(seeds)} fits", history)


def _curves(figure: Figure, axes: Axes, alt: str, history: Sequence[Mapping[str, str]]) -> Picture:
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    last = max(history, key=lambda row: int(row["epoch"]))
    return _picture(figure, f"{alt}. In the last epoch, {last['epoch']}: worst {100 * float(last['val_worst']):.1f} percent.")


def confusion(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> Picture:
    """Test images by true class and the class that MaC sees."""
    count = np.zeros((len(classes), len(classes)), int)
    for actual, seen in pairs:
        count[classes.index(actual), classes.index(seen)] += 1
    with _figure(2.2 + 0.9 * len(classes), 1.6 + 0.6 * len(classes)) as (figure, (axes,)):
        axes.imshow(count / count.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (a, s), n in np.ndenumerate(count):
            axes.text(s, a, str(n), ha="center", va="center", color="white" if n > count[a].sum() / 2 else "black")
        axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("MaC sees")
        axes.set_ylabel("true class")
        axes.grid(visible=False)
        said = (f"{c}: {count[i, i]} of {count[i].sum()} right" for i, c in enumerate(classes))
        return _picture(figure, "Confusion matrix of MaC on the test split. " + "; ".join(said))


def differences(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Paired differences of the mask ablation with their 95 % intervals, in points."""
    with _figure(4.8, 1 + 0.65 * len(rows)) as (figure, (axes,)):
        y = np.arange(len(rows))[::-1]
        mean, low, high = (np.array([100 * row[key] for row in rows]) for key in ("mean", "low", "high"))
        axes.errorbar(mean, y, xerr=[mean - low, high - mean], fmt="o", color=MAC, capsize=4)
        axes.axvline(0, color="#555555", linewidth=1)
        for at, row in zip(y, rows, strict=True):
            axes.text(0, at + 0.25, str(row["name"]), transform=axes.get_yaxis_transform(), fontsize=9)
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(rows) - 0.3)
        axes.set_xlabel("difference in test worst-group accuracy, points")
        said = (f"{row['name']}: {100 * row['mean']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})" for row in rows)
        return _picture(figure, "Mask ablation, paired differences. " + "; ".join(said))
