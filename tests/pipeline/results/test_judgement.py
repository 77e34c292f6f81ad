"""The verdict at the points that it was set by, and at its bounds."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.results.judgement import (
    FEWEST,
    Dependence,
    Figures,
    Finding,
    Verdict,
    depends,
    finding,
    judged,
)
from tests.figures import BAR, WATERBIRDS

DEMO = Figures(2, 100, 0.991, 0.845, 0.573, 0.835, 0.165, 0.0)
DOMINOES = Figures(2, 100, 0.99, 0.879, 0.705, 0.8, 0.2, 0.0)  # own and partner were not measured


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [(WATERBIRDS, "holds"), (DEMO, "holds"), (BAR, "fails"), (DOMINOES, "holds")],
)
def test_the_sets_that_the_bounds_were_set_by(figures: Figures, verdict: Verdict) -> None:
    assert judged(figures) == verdict


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"rest": 0.952}, "fails"),  # the rest tells as much as the core
        ({"rest": 0.99}, "fails"),  # ... or more
        ({"rest": 0.88}, "doubtful"),
        ({"own": 0.3, "partner": 0.7}, "holds"),  # ERM may just depend on the background
        ({"core": 0.7, "rest": 0.5}, "doubtful"),  # the core alone is hardly recognised
        ({"blank": 0.2}, "doubtful"),  # the mask of a blank map says nothing of the class
        ({"fewest": FEWEST - 1}, "unknown"),
        ({"classes": 1}, "unknown"),
        ({"original": 0.55}, "unknown"),  # ERM has learnt nothing
    ],
)
def test_what_speaks_against_it(change: dict[str, Any], verdict: Verdict) -> None:
    assert judged(replace(WATERBIRDS, **change)) == verdict


def test_shares_are_corrected_for_chance() -> None:
    assert BAR.corrected(1 / 6) == pytest.approx(0)
    assert BAR.corrected(1) == 1
    assert BAR.corrected(0) == 0
    assert WATERBIRDS.margin == pytest.approx(2 * (0.952 - 0.765))
    # Of six classes, the same accuracies say more than of two.
    assert judged(replace(WATERBIRDS, core=0.7, rest=0.5, classes=6)) == "holds"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"same": 0.95, "low": 0.06, "high": 0.2}, "depends"),
        ({"same": 0.95, "low": 0.06, "high": 0.08}, "depends"),
        ({"same": 0.95, "low": 0.04, "high": 0.2}, "unclear"),
        ({"same": 0.95, "low": 0.1, "high": 0.2, "blank": 0.2}, "unclear"),  # many masks say nothing
        ({"same": 0.95, "low": -0.05, "high": 0.09}, "unclear"),  # that it does not is never said
        ({"same": 0.95, "low": -0.05, "high": 0.11}, "unclear"),
        ({"same": 0.55, "low": -0.05, "high": 0.09}, "unclear"),  # it knows no combined image
        ({"same": None}, "unknown"),
        ({"same": 0.95, "low": 0.06, "high": 0.2, "fewest": FEWEST - 1}, "unknown"),
    ],
)
def test_whether_erm_depends_on_the_background(change: dict[str, Any], expected: Dependence) -> None:
    assert depends(replace(WATERBIRDS, **change)) == expected


def row(**changes: Any) -> dict[str, Any]:
    """The shares of a class that depends on the background; `changes` gives images, or (low, high)."""
    ends = {"core": (0.85, 0.95), "own": (0.6, 0.8), "partner": (0.2, 0.4), "dependence": (0.1, 0.3)}
    of_all = {**ends, **changes}.items()
    intervals = {f"{name}_interval": {"low": low, "high": high} for name, (low, high) in of_all}
    return {"images": 100, "same": 0.9, **intervals}


@pytest.mark.parametrize(
    ("changes", "blank", "expected"),
    [
        ({}, 0.0, "depends"),
        ({"dependence": (-0.05, 0.08)}, 0.0, "none"),
        ({"dependence": (0.0, 0.2)}, 0.0, "none"),
        ({"core": (0.5, 0.74)}, 0.0, "core"),
        ({"core": (0.5, 0.76)}, 0.0, "depends"),
        ({"own": (0.2, 0.4), "partner": (0.41, 0.8)}, 0.0, "background"),
        ({"own": (0.2, 0.4), "partner": (0.39, 0.8)}, 0.0, "depends"),
        ({}, 0.11, "blank"),
    ],
)
def test_what_is_found_of_a_class(changes: dict[str, Any], blank: float, expected: Finding) -> None:
    assert finding(row(**changes), blank, WATERBIRDS) == expected


def test_a_class_of_few_images_and_an_erm_that_knows_nothing() -> None:
    assert finding({**row(), "images": FEWEST - 1}, 0.0, WATERBIRDS) == "few"
    assert finding(row(), 0.0, replace(WATERBIRDS, original=0.55)) == "none"
