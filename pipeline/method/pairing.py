"""The pairing plan: what the paper draws online, per batch, drawn up front (paper section 3.2).

A draw is one epoch's worth of batches over the M rows of the retraining set. It depends on (seed, r) and the labels alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError


@dataclass(frozen=True)
class Draw:
    """One draw over M rows.

    Attributes:
        batch: (M,) int32, the batch that each row is in, 0 … ceil(M / B) − 1.
        partner: (M,) int32, for each row another row (0 … M − 1) with another label.
    """

    batch: NDArray[np.int32]
    partner: NDArray[np.int32]


def draw(labels: NDArray[np.integer], batch_size: int, seed: int, r: int) -> Draw:
    """Draw number `r`: a permutation of the rows cut into batches of `batch_size`.

    The partner of a row is uniform over the rows of its batch with another label; where the batch has none, over all rows
    with another label.

    Args:
        labels: (M,) integers.

    Raises:
        MacError: all labels are equal, so nothing can be paired.
    """
    if labels.min() == labels.max():
        raise MacError("features: every row of the retraining set has the same label, so no image has a partner of another class")
    rng = np.random.default_rng([seed, r])
    rows = len(labels)
    order = rng.permutation(rows)
    batch = np.empty(rows, np.int32)
    partner = np.empty(rows, np.int32)
    for number, start in enumerate(range(0, rows, batch_size)):
        members = order[start : start + batch_size]
        batch[members] = number
        other = labels[members][:, None] != labels[members][None, :]  # (b, b)
        for i, row in enumerate(members):
            candidates = members[other[i]]
            if len(candidates) == 0:
                candidates = np.flatnonzero(labels != labels[row])
            partner[row] = candidates[rng.integers(len(candidates))]
    return Draw(batch, partner)


def fills(channel_mean: NDArray[np.float32], batch: NDArray[np.int32]) -> NDArray[np.float32]:
    """The fill b of every row: the channel mean of the originals in its batch.

    Args:
        channel_mean: (M, 3), of each image over the input grid, in [0, 1].
        batch: (M,) batch numbers from 0 up.

    Returns:
        (M, 3) float32 in [0, 1].
    """
    count = np.bincount(batch).astype(np.float64)
    sums = np.stack([np.bincount(batch, weights=channel_mean[:, c]) for c in range(3)], axis=1)
    return (sums / count[:, None])[batch].astype(np.float32)
