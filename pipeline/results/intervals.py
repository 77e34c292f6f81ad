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
    share: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[float, float]:
    """The interval of the mean of independent shares, from their own intervals, (n,) (Zou, Donner 2008)."""
    below, above = (np.sqrt(((end - share) ** 2).sum()) / len(share) for end in (low, high))
    return max(0.0, float(share.mean() - below)), min(1.0, float(share.mean() + above))
