"""A block of rows, computed in forward passes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.compute import device
from pipeline.compute.engine import Arrays, Block, blocks


def cut(rows: int, count: int, on: torch.device) -> list[Block]:
    """Cut `rows` rows into blocks of `count` forward passes.

    So the same images always share a pass, and the numbers do not depend on how many are in a block.
    """
    return blocks(rows, count * device.forward_batch(on))


def passes(block: Block, on: torch.device) -> list[NDArray[np.int64]]:
    """The positions of a block, cut into forward passes."""
    size = device.forward_batch(on)
    starts = range(block.start, block.stop, size)
    return [np.arange(start, min(start + size, block.stop)) for start in starts]


def joined(found: Sequence[Arrays], axis: int = 0) -> Arrays:
    """The arrays of several passes or blocks, in one."""
    whole = {}
    for name in found[0]:
        whole[name] = np.concatenate([arrays[name] for arrays in found], axis)
    return whole
