"""Procedural scenes: land and water for the demo, and others besides for pretraining.

A scene is (size, size, 3) float32 in [0, 1].
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.float32]


def noise(size: int, rows: int, columns: int, rng: np.random.Generator) -> Picture:
    """Smooth noise in [0, 1]: a (rows, columns) grid of uniform values, upsampled to (size, size)."""
    grid = Image.fromarray(rng.random((max(rows, 1), max(columns, 1)), dtype=np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


def blend(low: Picture, high: Picture, weight: Picture) -> Picture:
    """Mix two colours (3,) by a weight picture (size, size)."""
    return np.asarray(low + (high - low) * weight[..., None], dtype=np.float32)


def colour(rng: np.random.Generator, low: tuple[float, float, float], high: tuple[float, float, float]) -> Picture:
    """A colour drawn uniformly from the box between two RGB corners."""
    return rng.uniform(low, high).astype(np.float32)


def land(size: int, rng: np.random.Generator) -> Picture:
    """A wood: greens and browns, foliage in blobs, upright trunks."""
    foliage = 0.6 * noise(size, 9, 9, rng) + 0.4 * noise(size, 34, 34, rng)
    picture = blend(colour(rng, (0.08, 0.2, 0.04), (0.2, 0.32, 0.1)), colour(rng, (0.35, 0.5, 0.12), (0.6, 0.7, 0.3)), foliage)
    trunk = colour(rng, (0.25, 0.14, 0.06), (0.45, 0.3, 0.18))
    columns = np.arange(size)
    for _ in range(rng.integers(3, 8)):
        centre, width = rng.uniform(0, size), rng.uniform(0.015, 0.05) * size
        weight = np.exp(-(((columns - centre) / width) ** 4)).astype(np.float32)
        picture = picture + (trunk - picture) * (weight[None, :, None] * 0.85)
    return picture


def water(size: int, rng: np.random.Generator) -> Picture:
    """A lake: blues, level ripples, sometimes a pale sky above the horizon."""
    ripples = 0.5 * noise(size, 45, 5, rng) + 0.5 * noise(size, 22, 3, rng)
    picture = blend(colour(rng, (0.03, 0.15, 0.35), (0.12, 0.32, 0.55)), colour(rng, (0.35, 0.55, 0.75), (0.6, 0.8, 0.95)), ripples)
    horizon = int(rng.uniform(-0.2, 0.35) * size)
    if horizon > 0:
        sky = blend(colour(rng, (0.6, 0.7, 0.85), (0.75, 0.85, 1.0)), np.ones(3, np.float32), noise(size, 4, 3, rng))
        picture[:horizon] = sky[:horizon]
    return picture


def desert(size: int, rng: np.random.Generator) -> Picture:
    dunes = 0.7 * noise(size, 7, 3, rng) + 0.3 * noise(size, 40, 40, rng)
    return blend(colour(rng, (0.5, 0.35, 0.15), (0.65, 0.45, 0.25)), colour(rng, (0.8, 0.65, 0.4), (0.95, 0.85, 0.6)), dunes)


def snow(size: int, rng: np.random.Generator) -> Picture:
    drifts = 0.6 * noise(size, 6, 6, rng) + 0.4 * noise(size, 40, 40, rng)
    return blend(colour(rng, (0.55, 0.6, 0.68), (0.7, 0.74, 0.8)), colour(rng, (0.88, 0.9, 0.94), (1, 1, 1)), drifts)


def wall(size: int, rng: np.random.Generator) -> Picture:
    courses, bricks = rng.integers(8, 16), rng.integers(4, 8)
    y, x = np.mgrid[0:size, 0:size] / size
    shifted = x * bricks + 0.5 * (np.floor(y * courses) % 2)
    mortar = ((y * courses % 1 < 0.14) | (shifted % 1 < 0.07)).astype(np.float32)
    brick = blend(
        colour(rng, (0.35, 0.15, 0.1), (0.5, 0.3, 0.25)), colour(rng, (0.55, 0.3, 0.2), (0.75, 0.5, 0.4)), noise(size, 12, 8, rng)
    )
    return blend(brick, np.full(3, 0.75, np.float32), mortar)


def night(size: int, rng: np.random.Generator) -> Picture:
    glow = noise(size, 5, 5, rng) * np.linspace(0.2, 1, size, dtype=np.float32)[:, None]
    return blend(colour(rng, (0.02, 0.02, 0.05), (0.1, 0.08, 0.15)), colour(rng, (0.25, 0.12, 0.3), (0.5, 0.3, 0.5)), glow)


def collage(size: int, rng: np.random.Generator) -> Picture:
    """Two scenes, or a scene and a flat colour, that meet along a random hard edge.

    Photographs are full of edges that belong to no object; a backbone that has seen some does not take a mask's edge for one.
    """
    first, second = (ALL[rng.integers(len(ALL))](size, rng) for _ in range(2))
    if rng.random() < 0.5:
        second = np.broadcast_to(colour(rng, (0.1,) * 3, (0.9,) * 3), first.shape)
    return np.where((noise(size, 5, 5, rng) > rng.uniform(0.3, 0.7))[..., None], first, second)


Scene = Callable[[int, np.random.Generator], Picture]
PLACES: tuple[Scene, ...] = (land, water)
ALL: tuple[Scene, ...] = (land, water, desert, snow, wall, night)
