"""Draws: partners and fills, chosen in advance. The paper chooses them in every batch (section 3.2).

A draw cuts the M images of the retraining set into the batches of one epoch, and gives each image a partner.
It depends only on the labels, the batch size, the seed and r. Images have their positions in masks.h5.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MacError


@dataclass(frozen=True)
class Draw:
    """One draw over M images.

    Attributes:
        batch: (M,) int32, the batch of each image, 0 … ceil(M / B) − 1.
        partner: (M,) int32, for each image the position of an image with another label.
    """

    batch: NDArray[np.int32]
    partner: NDArray[np.int32]


def draw(labels: NDArray[np.integer], batch_size: int, seed: int, r: int) -> Draw:
    """Draw number `r`: a permutation of the images, cut into batches of `batch_size`.

    The partner is drawn uniformly from the images of the same batch with another label. If there is none, it
    is drawn uniformly from all images with another label.

    Args:
        labels: (M,) integers.

    Raises:
        MacError: all labels are equal, so no image has a partner.
    """
    if labels.min() == labels.max():
        raise MacError(
            "features: every image of the retraining set has the same label, "
            "so none has a partner of another class"
        )
    rng = np.random.default_rng([seed, r])
    count = len(labels)
    order = rng.permutation(count)
    batch = np.empty(count, np.int32)
    partner = np.empty(count, np.int32)
    for number, start in enumerate(range(0, count, batch_size)):
        members = order[start : start + batch_size]
        batch[members] = number
        other = labels[members][:, None] != labels[members][None, :]  # (b, b)
        for i, position in enumerate(members):
            candidates = members[other[i]]
            if len(candidates) == 0:
                candidates = np.flatnonzero(labels != labels[position])
            partner[position] = candidates[rng.integers(len(candidates))]
    return Draw(batch, partner)


def channel_mean(grid: Tensor) -> Tensor:
    """The mean of each channel of each image.

    Sums of bytes are exact, so the mean does not depend on the device or on the batch.

    Args:
        grid: (B, 3, S, S) uint8, images on the input grid.

    Returns:
        (B, 3) float32 in [0, 1].
    """
    count, _, height, width = grid.shape
    # Columns first: float32 holds these sums exactly, and is fast.
    columns = grid.permute(0, 2, 3, 1).flatten(2).float().sum(1)
    total = columns.view(count, width, 3).sum(1, dtype=torch.float64)
    return (total / (255 * height * width)).float()


def fills(channel_mean: NDArray[np.float32], batch: NDArray[np.int32]) -> NDArray[np.float32]:
    """The fill b of every image: the mean colour of the original images in its batch.

    Args:
        channel_mean: (M, 3), of each image, in [0, 1].
        batch: (M,), batch numbers from 0.

    Returns:
        (M, 3) float32 in [0, 1].
    """
    count = np.bincount(batch).astype(np.float64)
    sums = np.stack([np.bincount(batch, weights=channel_mean[:, c]) for c in range(3)], axis=1)
    return (sums / count[:, None])[batch].astype(np.float32)
