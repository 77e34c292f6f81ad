"""Positions cut into blocks, so that memory grows neither with the dataset nor with its images' size."""

import math
from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.store import FittedHeads

READ_ROWS = 512  # the most masks or images that are read at a time
READ_BYTES = 64 << 20  # and their most bytes, but for a single one


def in_blocks(positions: NDArray[np.int64], *of: h5py.Dataset) -> Iterator[NDArray[np.int64]]:
    """Positions (n,) in blocks of 512, or fewer if rows are large, in order. The last block may be shorter.

    Args:
        of: the datasets whose rows are read; the one with the largest rows counts.
    """
    row = max(each.dtype.itemsize * math.prod(each.shape[1:]) for each in of)
    step = min(READ_ROWS, max(1, READ_BYTES // row))
    for start in range(0, len(positions), step):
        yield positions[start : start + step]


def logits(heads: FittedHeads, features: h5py.Dataset) -> NDArray[np.float32]:
    """What heads say of features (N, D) in a file, (S, N, C); up to the last bits, as of all at once."""
    found = np.empty((len(heads), len(features), heads.bias.shape[1]), np.float32)
    for block in in_blocks(np.arange(len(features)), features):
        rows = slice(block[0], block[-1] + 1)
        found[:, rows] = heads.logits(features[rows])
    return found
