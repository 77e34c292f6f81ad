"""Painted scenes: land and water for the demo, and others for pretraining.

A scene is (size, size, 3) float32 in [0, 1]. Each state of the random generator gives another one.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Colour = tuple[float, float, float]


def noise(size: int, rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Smooth noise: a (rows, columns) grid of uniform values, scaled up to (size, size). In [0, 1]."""
    grid = Image.fromarray(rng.random((max(rows, 1), max(columns, 1)), dtype=np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


def blend(low: Array, high: Array, weight: Array) -> Array:
    """Mix two colours, or two images.

    Args:
        low, high: (3,) or (size, size, 3); the result where the weight is 0, and where it is 1.
        weight: (size, size).

    Returns:
        (size, size, 3) float32.
    """
    return np.asarray(low + (high - low) * weight[..., None], dtype=np.float32)


def colour(rng: np.random.Generator, low: Colour, high: Colour) -> Array:
    """A random RGB colour (3,), each channel uniform between those of `low` and `high`."""
    return rng.uniform(low, high).astype(np.float32)


def land(size: int, rng: np.random.Generator) -> Array:
    """A wood: green and brown leaves in blobs, and upright trunks."""
    leaves = 0.6 * noise(size, 9, 9, rng) + 0.4 * noise(size, 34, 34, rng)
    dark = colour(rng, (0.08, 0.2, 0.04), (0.2, 0.32, 0.1))
    light = colour(rng, (0.35, 0.5, 0.12), (0.6, 0.7, 0.3))
    scene = blend(dark, light, leaves)
    trunk = colour(rng, (0.25, 0.14, 0.06), (0.45, 0.3, 0.18))
    columns = np.arange(size)
    for _ in range(rng.integers(3, 8)):
        centre, width = rng.uniform(0, size), rng.uniform(0.015, 0.05) * size
        weight = np.exp(-(((columns - centre) / width) ** 4)).astype(np.float32)
        scene = scene + (trunk - scene) * (weight[None, :, None] * 0.85)
    return scene


def water(size: int, rng: np.random.Generator) -> Array:
    """A lake: blue, with horizontal ripples, and sometimes a pale sky above the horizon."""
    ripples = 0.5 * noise(size, 45, 5, rng) + 0.5 * noise(size, 22, 3, rng)
    deep = colour(rng, (0.03, 0.15, 0.35), (0.12, 0.32, 0.55))
    bright = colour(rng, (0.35, 0.55, 0.75), (0.6, 0.8, 0.95))
    scene = blend(deep, bright, ripples)
    horizon = int(rng.uniform(-0.2, 0.35) * size)
    if horizon > 0:
        sky = blend(
            colour(rng, (0.6, 0.7, 0.85), (0.75, 0.85, 1.0)), np.ones(3, np.float32), noise(size, 4, 3, rng)
        )
        scene[:horizon] = sky[:horizon]
    return scene


def desert(size: int, rng: np.random.Generator) -> Array:
    """Dunes of sand."""
    dunes = 0.7 * noise(size, 7, 3, rng) + 0.3 * noise(size, 40, 40, rng)
    dark = colour(rng, (0.5, 0.35, 0.15), (0.65, 0.45, 0.25))
    light = colour(rng, (0.8, 0.65, 0.4), (0.95, 0.85, 0.6))
    return blend(dark, light, dunes)


def snow(size: int, rng: np.random.Generator) -> Array:
    """A field of snow with grey drifts."""
    drifts = 0.6 * noise(size, 6, 6, rng) + 0.4 * noise(size, 40, 40, rng)
    dark = colour(rng, (0.55, 0.6, 0.68), (0.7, 0.74, 0.8))
    light = colour(rng, (0.88, 0.9, 0.94), (1, 1, 1))
    return blend(dark, light, drifts)


def wall(size: int, rng: np.random.Generator) -> Array:
    """A wall of bricks with mortar between them."""
    courses, bricks = rng.integers(8, 16), rng.integers(4, 8)
    y, x = np.mgrid[0:size, 0:size] / size
    shifted = x * bricks + 0.5 * (np.floor(y * courses) % 2)
    mortar = ((y * courses % 1 < 0.14) | (shifted % 1 < 0.07)).astype(np.float32)
    dark = colour(rng, (0.35, 0.15, 0.1), (0.5, 0.3, 0.25))
    light = colour(rng, (0.55, 0.3, 0.2), (0.75, 0.5, 0.4))
    brick = blend(dark, light, noise(size, 12, 8, rng))
    return blend(brick, np.full(3, 0.75, np.float32), mortar)


def night(size: int, rng: np.random.Generator) -> Array:
    """A dark sky that glows towards the ground."""
    glow = noise(size, 5, 5, rng) * np.linspace(0.2, 1, size, dtype=np.float32)[:, None]
    dark = colour(rng, (0.02, 0.02, 0.05), (0.1, 0.08, 0.15))
    light = colour(rng, (0.25, 0.12, 0.3), (0.5, 0.3, 0.5))
    return blend(dark, light, glow)


def collage(size: int, rng: np.random.Generator) -> Array:
    """Two scenes, or a scene and a plain colour, with a random hard edge between them.

    Photographs are full of edges that belong to no object. A backbone that was trained with such edges does
    not mistake the edge of a mask for an object.
    """
    first = ALL[rng.integers(len(ALL))](size, rng)
    second = ALL[rng.integers(len(ALL))](size, rng)
    if rng.random() < 0.5:
        second = np.broadcast_to(colour(rng, (0.1,) * 3, (0.9,) * 3), first.shape)
    is_first = noise(size, 5, 5, rng) > rng.uniform(0.3, 0.7)
    return np.where(is_first[..., None], first, second)


Scene = Callable[[int, np.random.Generator], Array]
PLACES: tuple[Scene, ...] = (land, water)
ALL: tuple[Scene, ...] = (land, water, desert, snow, wall, night)
