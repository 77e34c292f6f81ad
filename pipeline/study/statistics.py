"""What runs of ERM say: intervals over runs and test images, paired tests, and how many runs would be needed.

R is the number of ERM runs. Heads that were retrained in one run are averaged before anything else: they
share their network, so they are no runs of their own.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pipeline.results.intervals import Z
from pipeline.results.scores import basic_interval

RESAMPLES = 2000
LEVEL = 0.05  # two-sided
POWER = 0.8
MOST_RUNS = 10_000  # more than anyone will have
_PARTS = 2000

Floats = NDArray[np.float64]
Interval = tuple[float, float]


def drawn_runs(runs: int, seed: int = 0) -> NDArray[np.int64]:
    """The runs of each resample, with replacement: (RESAMPLES, R)."""
    return np.random.default_rng((seed, runs, runs)).integers(runs, size=(RESAMPLES, runs))


def hierarchical_interval(
    observed: Floats, resampled: Floats, drawn: NDArray[np.int64], least: float
) -> Interval:
    """The 95 % interval of the mean over runs: for other runs, and other test images.

    Each resample has other test images, the same for all runs, and other runs. A bootstrap of R things is too
    narrow where R is small (Hesterberg 2015): it lacks R / (R − 1) of the variance, and Student's t. So the
    runs' part is stretched by both. If all test images were alike, the interval would be about Student's; if
    all runs were alike, it would be the bootstrap's over test images. With one run it is the latter. It is
    the basic interval (`results.scores.basic_interval`).

    Args:
        observed: (R,), the value of each run.
        resampled: (RESAMPLES, R), the same on each of the resampled test splits.
        drawn: (RESAMPLES, R), from `drawn_runs`.
        least: the least that the value can be; the most is 1.
    """
    runs, whole = len(observed), resampled.mean(1)
    if runs > 1:
        stretch = float(stats.t.ppf(1 - LEVEL / 2, runs - 1)) / Z * math.sqrt(runs / (runs - 1))
        whole = whole + stretch * (observed[drawn].mean(1) - observed.mean())
    return basic_interval(float(observed.mean()), whole, least)


def summary(values: Floats) -> dict[str, float | None]:
    """Mean, standard deviation (None for one run), lowest and highest of the values of the runs, (R,)."""
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return {
        "mean": float(values.mean()),
        "std": std,
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }


def paired(differences: Floats) -> dict[str, float | int | None]:
    """What differences of R runs say; None for what R, or equal differences, leave undefined.

    Returns:
        `t_low`, `t_high`: Student's 95 % interval of the mean, within [−1, 1]. `t_p`: of the paired t test.
        `wilcoxon_p`: of the signed-rank test; exact where there is neither 0 nor a tie. `d_z`: the mean in
        standard deviations (Cohen); `g_z`: the same with Hedges' correction for few runs. `runs_needed`: see
        `needed`, for g_z; from 3 runs on.
    """
    mean, runs = float(differences.mean()), len(differences)
    found: dict[str, float | int | None] = dict.fromkeys(
        ("t_low", "t_high", "t_p", "wilcoxon_p", "d_z", "g_z", "runs_needed")
    )
    if runs < 2:
        return found
    std = float(differences.std(ddof=1))
    if not differences.any():
        return found | {"t_p": 1.0, "wilcoxon_p": 1.0, "d_z": 0.0, "g_z": 0.0}
    found["wilcoxon_p"] = float(stats.wilcoxon(differences).pvalue)
    if std < 1e-12:  # equal but for rounding
        return found
    half, d = float(stats.t.ppf(1 - LEVEL / 2, runs - 1)) * std / math.sqrt(runs), mean / std
    found |= {"t_low": max(-1.0, mean - half), "t_high": min(1.0, mean + half)}
    found |= {"t_p": float(stats.ttest_1samp(differences, 0.0).pvalue), "d_z": d}
    if runs > 2:
        g = d * hedges(runs - 1)
        found |= {"g_z": g, "runs_needed": needed(g)}
    return found


def hedges(freedom: int) -> float:
    """The correction of an effect size for few degrees of freedom (Hedges 1981): J < 1."""
    return math.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / math.sqrt(
        freedom / 2
    )


def power(effect: float, runs: int) -> float:
    """The power of the two-sided paired t test at .05, for normal differences.

    It is the mean over the standard deviations that may be found: at the middles of _PARTS equal parts of
    their distribution. scipy's noncentral t is NaN for large effects.

    Args:
        effect: the mean difference in standard deviations.
    """
    middles = (np.arange(_PARTS) + 0.5) / _PARTS
    found = np.sqrt(stats.chi2.ppf(middles, runs - 1) / (runs - 1))
    bound, away = float(stats.t.ppf(1 - LEVEL / 2, runs - 1)) * found, effect * math.sqrt(runs)
    return float(np.mean(special.ndtr(away - bound) + special.ndtr(-away - bound)))


def needed(effect: float) -> int | None:
    """How many runs would show an effect with power .8; None if more than MOST_RUNS.

    Args:
        effect: the mean difference in standard deviations.
    """
    low, high = 1, 2  # too few, and perhaps enough
    while power(effect, high) < POWER:
        if high >= MOST_RUNS:
            return None
        low, high = high, min(2 * high, MOST_RUNS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle) >= POWER else (middle, high)
    return high


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values, corrected for being several (Holm 1979); None stays None and does not count."""
    there = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, place) in enumerate(there):
        highest = max(highest, min(1.0, (len(there) - rank) * value))
        corrected[place] = highest
    return corrected
