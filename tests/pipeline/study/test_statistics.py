"""The study's statistics, against scipy, published values, plain loops, and simulations."""

import math
from itertools import product, starmap

import numpy as np
import pytest
from scipy import stats

from pipeline.results.scores import resampled_worst
from pipeline.study import statistics
from pipeline.study.statistics import (
    drawn_runs,
    hedges,
    hierarchical_interval,
    holm,
    needed,
    paired,
    power,
    summary,
)

RUNS = np.array([0.12, 0.03, 0.07, -0.02, 0.10])


def test_paired_tests_are_those_of_scipy() -> None:
    one, other = np.array([0.8, 0.75, 0.9, 0.7, 0.85]), np.array([0.68, 0.72, 0.83, 0.72, 0.75])
    found = paired(one - other)
    assert found["t_p"] == pytest.approx(stats.ttest_rel(one, other).pvalue)
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon(one, other).pvalue)
    low, high = stats.ttest_rel(one, other).confidence_interval()
    assert (found["t_low"], found["t_high"]) == pytest.approx((low, high))
    assert found["d_z"] == pytest.approx((one - other).mean() / np.std(one - other, ddof=1))


def test_five_runs_of_one_sign_have_wilcoxon_s_lowest_p() -> None:
    assert paired(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))["wilcoxon_p"] == 2 / 2**5


def test_what_few_or_equal_runs_leave_undefined_is_none_and_never_nan() -> None:
    assert set(paired(np.array([0.1])).values()) == {None}
    assert summary(np.array([0.1])) == {"mean": 0.1, "std": None, "lowest": 0.1, "highest": 0.1}
    two = paired(np.array([0.1, 0.3]))
    assert two["t_p"] == pytest.approx(stats.ttest_1samp([0.1, 0.3], 0).pvalue)
    assert two["g_z"] is two["runs_needed"] is None
    equal, none = paired(np.full(4, 0.1)), paired(np.zeros(4))
    assert equal["t_p"] is equal["t_low"] is equal["d_z"] is None
    assert (none["t_p"], none["wilcoxon_p"], none["d_z"], none["runs_needed"]) == (1, 1, 0, None)
    for found in (two, equal, none, paired(RUNS)):
        assert not any(isinstance(value, float) and math.isnan(value) for value in found.values())


def test_holm_on_the_example_of_a_textbook() -> None:
    """p = .01, .04, .03, .005: 4 · .005, 3 · .01, 2 · .03, and no less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.01, 0.7]) == pytest.approx([1.0, None, 0.03, 1.0])


@pytest.mark.parametrize(("effect", "runs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_the_runs_that_are_needed_are_those_of_published_tables(effect: float, runs: int) -> None:
    """A paired t test, two-sided .05, power .8, as G*Power has them."""
    assert needed(effect) == needed(-effect) == runs


def test_no_number_of_runs_shows_nothing() -> None:
    assert needed(0.0) is needed(0.01) is None
    assert (needed(7.0), needed(8.0), needed(20.0)) == (3, 3, 2)  # scipy's nct is NaN for some of these
    found = list(starmap(power, product(np.arange(0, 40, 1.3), (2, 3, 5, 100, 10_000))))
    assert np.isfinite(found).all()


def test_power_is_the_share_of_experiments_that_show_the_effect() -> None:
    samples = np.random.default_rng(0).normal(0.9, 1, (20_000, 8))
    shown = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert power(0.9, 8) == pytest.approx(shown.mean(), abs=0.01)


def test_hedges_correction_takes_the_bias_away() -> None:
    samples = np.random.default_rng(0).normal(0.7, 1, (40_000, 6))
    d = samples.mean(1) / samples.std(1, ddof=1)
    assert d.mean() > 0.8
    assert (d * hedges(5)).mean() == pytest.approx(0.7, abs=0.01)
    assert hedges(9) == pytest.approx(1 - 3 / (4 * 9 - 1), abs=1e-3)  # Hedges' own approximation


def test_with_equal_runs_the_interval_is_over_images_and_with_equal_images_over_runs() -> None:
    images = np.random.default_rng(0).normal(0.5, 0.02, (statistics.RESAMPLES, 1)).repeat(4, axis=1)
    equal = hierarchical_interval(np.full(4, 0.5), images, drawn_runs(4), 0.0)
    assert equal == pytest.approx(tuple(1 - np.percentile(images[:, 0], [97.5, 2.5])))
    runs = np.random.default_rng(1).normal(0.5, 0.05, 10)
    found = hierarchical_interval(runs, np.tile(runs, (statistics.RESAMPLES, 1)), drawn_runs(10), 0.0)
    student = stats.t.interval(0.95, 9, runs.mean(), stats.sem(runs))
    assert found == pytest.approx(student, abs=0.1 * (student[1] - student[0]))


def test_one_run_has_the_interval_of_its_test_images_alone() -> None:
    images = np.random.default_rng(0).normal(0.5, 0.02, (statistics.RESAMPLES, 1))
    found = hierarchical_interval(np.array([0.5]), images, drawn_runs(1), 0.0)
    assert found == pytest.approx(tuple(1 - np.percentile(images, [97.5, 2.5])))


@pytest.mark.parametrize(("runs", "least"), [(1, 0.0), (3, 0.92)])
def test_methods_with_the_same_worst_group_are_not_told_apart(
    runs: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four groups of 250 images, right in .8 of each, against .8, .95, .95, .95; all runs share the images.

    Percentiles would call the even one worse in about .3 of the studies of one run, and cover its worst group
    in about .5 (one run) and .9 (three).
    """
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    trials, spread, group = 60, 0.1 * (runs > 1), np.repeat(np.arange(4), 250)
    of_groups = stats.norm.ppf([[0.8] * 4, [0.8, 0.95, 0.95, 0.95]]) * math.sqrt(1 + spread**2)
    covered = worse = better = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        hard, run = rng.normal(size=1000) * math.sqrt(0.8), rng.normal(size=(2, runs, 1)) * spread
        own = rng.normal(size=(2, runs, 1000)) * math.sqrt(0.2)
        right = of_groups[:, None, group] + run + hard + own > 0
        lowest = resampled_worst(right.reshape(-1, 1000), group, statistics.RESAMPLES)
        even, uneven = lowest[:, :runs], lowest[:, runs:]
        worst = right.reshape(2, runs, 4, 250).mean(-1).min(-1)
        low, high = hierarchical_interval(worst[0], even, drawn_runs(runs), 0.0)
        covered += low <= 0.8 <= high
        low, high = hierarchical_interval(worst[0] - worst[1], even - uneven, drawn_runs(runs), -1.0)
        worse, better = worse + (high < 0), better + (low > 0)
    assert covered / trials >= (least or 0.65)
    assert worse / trials <= 0.25
    assert better / trials <= 0.12
