"""The figure of the study: a dot for each run of each method."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.steps.report.figures import ERM as ERM_COLOUR
from pipeline.steps.report.figures import MAC as MAC_COLOUR
from pipeline.steps.report.figures import canvas, svg
from pipeline.study.names import ERM, MAC

_GREY = "#666666"


def of_study(found: Mapping[str, Any]) -> str:
    """The worst test accuracy of every method in every run, as SVG; a panel for each variant.

    A bar is the mean over the runs, with its interval over runs and test images.

    Args:
        found: study.json.
    """
    variants = found["variants"]
    rows = max(len(each["methods"]) for each in variants.values())
    with canvas(7.2, len(variants) * (1.1 + 0.28 * rows), len(variants)) as (figure, panels):
        for axes, (name, variant) in zip(panels, variants.items(), strict=True):
            methods, key = variant["methods"], variant["worst"]
            for place, (method, row) in enumerate(methods.items()):
                y, worst = -place, row[key]
                colour = {ERM: ERM_COLOUR, MAC: MAC_COLOUR}.get(method, _GREY)
                dots = 100 * np.array(worst["runs"])
                mean, low, high = (100 * worst[end] for end in ("mean", "low", "high"))
                axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
                axes.plot([mean], [y], marker="|", markersize=13, markeredgewidth=2, color=colour)
                axes.plot(dots, np.full(len(dots), y), "o", markersize=4.5, color=colour, alpha=0.6)
            axes.set_yticks(-np.arange(len(methods)), [row["title"] for row in methods.values()])
            axes.set_ylim(0.6 - len(methods), 0.6)
            axes.set_xlabel(f"test {key.replace('_', ' ')} accuracy, %")
            runs = len(variant["seeds"])
            axes.set_title(f"{name}: {runs} ERM run{'s' if runs > 1 else ''}", fontsize=10)
        return svg(figure)
