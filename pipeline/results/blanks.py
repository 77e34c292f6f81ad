"""Blank maps: those that do not say where the class is seen."""

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.method.kinds import LOOK_AWAY
from pipeline.results.blocks import in_blocks


def is_blank(cam: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a map (n, h, w) is blank: it is constant, so it ranks no pixel, or nowhere positive.

    A map that is nowhere positive ranks pixels, but none of them speaks for the class.
    """
    flat = cam.reshape(len(cam), -1)
    return np.asarray((flat.max(1) == flat.min(1)) | (flat.max(1) <= 0))


def blank_in(cam: h5py.Dataset, method: str) -> NDArray[np.bool_]:
    """Whether each map (n, h, w) of a masks.h5 is blank, (n,).

    Args:
        method: `saliency.method`; none is blank if it does not look at the network.
    """
    if method in LOOK_AWAY:
        return np.zeros(len(cam), np.bool_)
    blocks = in_blocks(np.arange(len(cam)), cam)
    return np.concatenate([is_blank(cam[each[0] : each[-1] + 1]) for each in blocks])
