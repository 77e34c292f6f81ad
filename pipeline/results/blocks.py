"""Positions cut into blocks, so that memory does not grow with the dataset."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

READ_ROWS = 512  # number of masks or images that are read at a time


def in_blocks(positions: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions (n,) in blocks of 512, in order. The last block may be shorter."""
    for start in range(0, len(positions), READ_ROWS):
        yield positions[start : start + READ_ROWS]
