"""Colour pictures of maps and masks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Colours of `inferno`, matplotlib's perceptually uniform colour map, at equal distances.
_INFERNO = np.array(
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], np.float64
)
_OUTLINE = (255, 220, 0)

RGB = NDArray[np.uint8]  # a picture: (H, W, 3), channels red, green, blue


def heat(scores: NDArray[np.floating], low: float | None = None, high: float | None = None) -> RGB:
    """A map as colours: black, then red, then pale yellow.

    Args:
        scores: (H, W).
        low: the value for black; None takes the lowest of the map.
        high: the value for pale yellow; None takes the highest of the map.
    """
    low = float(scores.min()) if low is None else low
    high = float(scores.max()) if high is None else high
    place = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    anchors = np.linspace(0, 1, len(_INFERNO))
    channels = [np.interp(place, anchors, channel) for channel in _INFERNO.T]
    return np.stack(channels, -1).round().astype(np.uint8)


def heat_over(image: RGB, maps: Sequence[NDArray[np.floating]]) -> list[RGB]:
    """Several maps, each mixed half and half with the same image, all with the same scale.

    The scale goes from 0, or from the lowest value of all maps if that is below 0, to the highest value.

    Args:
        image: (H, W, 3) uint8.
        maps: (H, W) each.
    """
    low = min(0.0, *(float(each.min()) for each in maps))
    high = max(float(each.max()) for each in maps)
    pictures = []
    for each in maps:
        mixed = (image.astype(np.float64) + heat(each, low, high)) / 2
        pictures.append(mixed.round().astype(np.uint8))
    return pictures


def overlay(image: RGB, mask: NDArray[np.bool_]) -> RGB:
    """The core in its own colours with a yellow outline; the rest is grey and dark.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
    """
    grey = image.mean(-1, keepdims=True) * 0.4 + 20
    picture = np.where(mask[..., None], image, grey).astype(np.uint8)
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture[mask & ~inner] = _OUTLINE
    return picture


def to_rgb(pixels: NDArray[np.floating]) -> RGB:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return (pixels.transpose(1, 2, 0) * 255).round().clip(0, 255).astype(np.uint8)
