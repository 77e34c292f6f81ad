"""The figure of the study: a dot for each run of each method."""

from collections.abc import Mapping
from typing import Any

from pipeline.steps.report.charts import ERM as ERM_COLOUR
from pipeline.steps.report.charts import MAC as MAC_COLOUR
from pipeline.steps.report.charts import SERIES, Chart, Scale
from pipeline.study.names import ERM, MAC

_WIDTH, _ROW, _LABELS = 720, 24, 270  # pixels


def of_study(found: Mapping[str, Any]) -> str:
    """The worst test accuracy of every method in every run, as SVG; a panel for each variant.

    A line across is the mean over the runs, and a line along its interval over runs and test images.

    Args:
        found: study.json.
    """
    variants = found["variants"]
    heights = [_ROW * len(variant["methods"]) + 90 for variant in variants.values()]
    chart = Chart(_WIDTH, sum(heights), "Worst test accuracy of every method in every run")
    top = 0
    for (name, variant), height in zip(variants.items(), heights, strict=True):
        runs = len(variant["seeds"])
        chart.text(10, top + 22, f"{name}: {runs} ERM run{'s' if runs > 1 else ''}", "strong")
        _panel(chart, variant, top + 34)
        top += height
    chart.text(10, top - 6, "a dot: a run; across: the mean of the runs; along: its 95 % interval")
    return chart.alone()


def _panel(chart: Chart, variant: Mapping[str, Any], top: float) -> None:
    methods, key = variant["methods"], variant["worst"]
    ends = list[float]()
    for row in methods.values():
        ends += [*row[key]["runs"], row[key]["low"], row[key]["high"]]
    x = Scale(max(100 * min(ends) - 2, 0), min(100 * max(ends) + 2, 100), _LABELS, _WIDTH - 15)
    bottom = top + _ROW * len(methods)
    chart.x_axis(x, top, bottom, f"test {key.replace('_', ' ')} accuracy, %")
    for place, (method, row) in enumerate(methods.items()):
        y, worst = top + _ROW * (place + 0.5), row[key]
        colour = {ERM: ERM_COLOUR, MAC: MAC_COLOUR}.get(method, SERIES[6])
        chart.text(_LABELS - 12, y + 4, row["title"], "end")
        chart.line(x(100 * worst["low"]), y, x(100 * worst["high"]), y, f"stroke {colour}")
        mean = x(100 * worst["mean"])
        chart.line(mean, y - 8, mean, y + 8, f"stroke thick {colour}")
        for run in worst["runs"]:
            chart.dot(x(100 * run), y, 3.5, f"seen-through {colour}")
