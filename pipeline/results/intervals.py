"""Intervals of shares of images."""

import math

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # of a 95 % interval


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` images (Wilson 1927)."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(
    share: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], least: float = 0.0
) -> tuple[float, float]:
    """The interval of the mean of independent shares, from their own intervals, (n,) (Zou, Donner 2008).

    Args:
        least: the least that a share can be: −1 for differences of shares.
    """
    below, above = (np.sqrt(((end - share) ** 2).sum()) / len(share) for end in (low, high))
    return max(least, float(share.mean() - below)), min(1.0, float(share.mean() + above))


def difference_interval(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of mean(one) − mean(other), for shares of the same images, (n,).

    It adds the squares of the two Wilson intervals, less what the two have in common (Newcombe 1998, on
    paired data, method 8; Zou, Donner 2008).
    """
    a, b = float(one.mean()), float(other.mean())
    (a_low, a_high), (b_low, b_high) = wilson(a, len(one)), wilson(b, len(other))
    spread = float(one.std() * other.std())
    common = float(((one - a) * (other - b)).mean()) / spread if spread > 0 else 0.0

    def half(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up**2 + down**2 - 2 * common * up * down))

    below, above = half(a - a_low, b_high - b), half(a_high - a, b - b_low)
    return max(-1.0, a - b - below), min(1.0, a - b + above)
