"""Pictures of maps and masks, as (H, W, 3) uint8 arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Anchor colours of matplotlib's perceptually uniform map `inferno`.
_INFERNO = np.array([(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], np.float64)

Picture = NDArray[np.uint8]


def heat(scores: NDArray[np.floating], low: float | None = None, high: float | None = None) -> Picture:
    """A map (H, W) as colours, `low` (its lowest value) black, `high` (its highest) pale yellow."""
    low, high = float(scores.min()) if low is None else low, float(scores.max()) if high is None else high
    position = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    anchors = np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(position, anchors, _INFERNO[:, c]) for c in range(3)], -1).round().astype(np.uint8)


def heat_over(image: Picture, maps: Sequence[NDArray[np.floating]]) -> list[Picture]:
    """Maps over one image, half and half, in one scale: from 0, or the lowest if all are higher, to the highest value."""
    low, high = min(0.0, *(float(m.min()) for m in maps)), max(float(m.max()) for m in maps)
    return [((image.astype(np.float64) + heat(m, low, high)) / 2).round().astype(np.uint8) for m in maps]


def overlay(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """The core in its colours with a bright outline, the rest grey and dimmed.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
    """
    grey = image.mean(-1, keepdims=True) * 0.4 + 20
    picture = np.where(mask[..., None], image, grey).astype(np.uint8)
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture[mask & ~inner] = (255, 220, 0)
    return picture


def to_picture(pixels: NDArray[np.floating]) -> Picture:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return (pixels.transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)
