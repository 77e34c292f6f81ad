"""What is known before a training begins: the batches and the seed of each epoch, and each learning rate.

All of it depends only on the rows, the parameters and the number of the epoch. So a training that was killed
continues as if nothing had happened.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.compute.ranks import Ranks

Schedule = Literal["constant", "cosine", "one_cycle"]


def learning_rate(schedule: Schedule, peak: float, progress: float) -> float:
    """The learning rate of a step.

    Args:
        schedule: `constant` is always `peak`. `cosine` falls from `peak` to 0 along half a cosine.
            `one_cycle` (Smith and Topin 2018) rises from peak/25 to `peak` over the first 30 % of the steps,
            then falls to 0, both along a cosine.
        peak: the highest learning rate.
        progress: the share of all steps that is done, in [0, 1).
    """
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * progress)) / 2
    if progress < 0.3:
        return peak / 25 + (peak - peak / 25) * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return peak * (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2


def batches_of_epoch(
    rows: NDArray[np.int64], size: int, seed: int, epoch: int, ranks: Ranks
) -> list[NDArray[np.int64]]:
    """The batches of an epoch in their order: of each batch, the share of this process.

    All processes get the same number of images of a batch. The few images that remain are not used in this
    epoch.

    Args:
        rows: all training rows; a row that occurs twice is used twice.
        size: images in a batch, over all processes.
        seed: seed of the order.
        epoch: its number, from 1.
        ranks: the processes that train together.
    """
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    # Batch normalisation needs two images or more in each process.
    if len(batches) > 1 and len(batches[-1]) < 2 * ranks.count:
        batches.pop()
    return [_share(batch, ranks) for batch in batches]


def _share(batch: NDArray[np.int64], ranks: Ranks) -> NDArray[np.int64]:
    used = len(batch) // ranks.count * ranks.count
    return batch[ranks.rank : used : ranks.count]


def seed_of_epoch(seed: int, epoch: int, rank: int) -> int:
    """The seed of augmentation, dropout and stochastic depth in an epoch. Each process has its own."""
    numbers = (seed, epoch) if rank == 0 else (seed, epoch, rank)
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
