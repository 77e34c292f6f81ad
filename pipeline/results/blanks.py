"""Blank maps: those that do not say where the class is seen."""

from collections.abc import Callable

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.method.kinds import LOOK_AWAY
from pipeline.results.blocks import in_blocks


def is_constant(cam: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a map (n, h, w) is constant, so that it ranks no pixel, (n,)."""
    flat = cam.reshape(len(cam), -1)
    return np.asarray(flat.max(1) == flat.min(1))


def is_blank(cam: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a map (n, h, w) is blank, constant or nowhere positive, (n,).

    A map that is nowhere positive ranks pixels, but none of them speaks for the class.
    """
    return np.asarray(is_constant(cam) | (cam.reshape(len(cam), -1).max(1) <= 0))


def blank_in(
    cam: h5py.Dataset,
    method: str,
    which: Callable[[NDArray[np.float32]], NDArray[np.bool_]] = is_blank,
) -> NDArray[np.bool_]:
    """Whether each map (n, h, w) of maps.h5 or masks.h5 is blank, (n,).

    Args:
        method: `saliency.method`; none is blank if it does not look at the network.
        which: `is_blank` or `is_constant`.
    """
    if method in LOOK_AWAY:
        return np.zeros(len(cam), np.bool_)
    blocks = in_blocks(np.arange(len(cam)), cam)
    return np.concatenate([which(cam[each[0] : each[-1] + 1]) for each in blocks])
