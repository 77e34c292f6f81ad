"""Draws: partners and fills, chosen in advance. The paper chooses them in every batch (section 3.2).

A draw cuts the M images of the retraining set into the batches of one epoch, and gives each image a partner.
It depends only on the labels, the batch size, the seed and r. Images have their positions in masks.h5. The
validation images have batches of their own; their partners are of the retraining set too.
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


def draw(
    labels: NDArray[np.integer],
    batch_size: int,
    seed: int,
    r: int,
    among: NDArray[np.bool_] | None = None,
) -> Draw:
    """Draw number `r`: a permutation of the images, cut into batches of `batch_size`.

    The partner is drawn uniformly from the images of the same batch with another label. If there is none, it
    is drawn uniformly from all images with another label.

    Args:
        labels: (M,) integers.
        among: (M,), which images can be partners; None for all of them. They have two labels at least.

    Raises:
        MacError: all labels are equal, so no image has a partner.
    """
    if among is None:
        among = np.ones(len(labels), np.bool_)
    if labels.min() == labels.max():
        raise MacError(
            "features: every image of the retraining set has the same label, "
            "so none has a partner of another class"
        )
    rng = _rng(seed, r, 0)
    partner = np.empty(len(labels), np.int32)
    cut = _cut(len(labels), batch_size, rng)
    for members in cut:
        other = (labels[members][:, None] != labels[members][None, :]) & among[members]  # (b, b)
        for i, position in enumerate(members):
            candidates = members[other[i]]
            if len(candidates) == 0:
                candidates = np.flatnonzero((labels != labels[position]) & among)
            partner[position] = candidates[rng.integers(len(candidates))]
    return Draw(_numbered(cut), partner)


def by_batch(batch: NDArray[np.integer]) -> NDArray[np.int32]:
    """The positions in the order of their batches, ties in order, of batches (R, M); (R, M) int32."""
    return np.argsort(batch, axis=1, kind="stable").astype(np.int32)


def partners(
    labels: NDArray[np.integer],
    theirs: NDArray[np.integer],
    seed: int,
    r: int,
    stream: int,
    same_class: bool,
) -> NDArray[np.int32]:
    """For each image, one of other images: uniformly drawn from those with another label, or with its own.

    Args:
        labels: (M,) integers, of the images.
        theirs: (N,) integers, of the images that can be partners. Each image must have one that fits.
        stream: draws of another stream are independent of these; 0 is that of `draw`.
        same_class: whether the partner has the image's own label.

    Returns:
        (M,) int32, positions in `theirs`.
    """
    order = np.argsort(theirs, kind="stable")  # a class is one run
    first, after = (np.searchsorted(theirs[order], labels, side) for side in ("left", "right"))
    # The other classes are one run too, from `after` past the end to `first`.
    start, count = (first, after - first) if same_class else (after, len(theirs) - (after - first))
    step = _rng(seed, r, stream).integers(count)
    return np.asarray(order[(start + step) % len(theirs)], np.int32)


def batches(count: int, batch_size: int, seed: int, r: int, stream: int) -> NDArray[np.int32]:
    """Batches as `draw` has them, (count,), for images whose partners are not among them.

    Args:
        stream: as in `partners`.
    """
    return _numbered(_cut(count, batch_size, _rng(seed, r, stream)))


def _rng(seed: int, r: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, r, stream])


def _cut(count: int, batch_size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """A permutation of 0 … count − 1, cut into batches."""
    order = rng.permutation(count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def _numbered(cut: list[NDArray[np.int64]]) -> NDArray[np.int32]:
    """The number of the batch of each image."""
    number = np.repeat(np.arange(len(cut), dtype=np.int32), [len(members) for members in cut])
    batch = np.empty_like(number)
    batch[np.concatenate(cut)] = number
    return batch


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
