"""One demo image: a silhouette with a texture over a scene, and its true mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.demo.scenes import Array, Scene, blend, colour, noise
from pipeline.demo.silhouettes import Silhouette, render

TEXTURES = ("plain", "stripes", "spots", "mottled")


@dataclass(frozen=True)
class Look:
    """How the figures of a dataset look.

    Attributes:
        visibility: their lowest and highest opacity; below 1, the scene is seen through them.
        extent: smallest and largest side of the square that they are drawn in, as a share of the image's.
    """

    visibility: tuple[float, float]
    extent: tuple[float, float]


def plumage(texture: str, size: int, rng: np.random.Generator) -> Array:
    """A surface of two random colours in one of the TEXTURES: (size, size, 3) float32 in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if texture == "plain":
        weight = 0.25 * noise(size, 6, 6, rng)
    elif texture == "stripes":
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.12)
        across = x * np.cos(angle) + y * np.sin(angle)
        weight = (np.sin(across * 2 * np.pi / period) > 0).astype(np.float32)
    elif texture == "spots":
        period = rng.uniform(0.07, 0.12)
        squared_distance = (x / period % 1 - 0.5) ** 2 + (y / period % 1 - 0.5) ** 2
        weight = (squared_distance < 0.09).astype(np.float32)
    else:
        weight = noise(size, 24, 24, rng)
    return blend(colour(rng, (0.05,) * 3, (0.95,) * 3), colour(rng, (0.05,) * 3, (0.95,) * 3), weight)


def paint(
    silhouette: Silhouette,
    scene: Scene,
    texture: str,
    size: int,
    look: Look,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Paint one image.

    Args:
        texture: the texture of the figure, one of the TEXTURES.
        size: side of the image, pixels.

    Returns:
        The image (size, size, 3) uint8, and its true mask (size, size) bool.
    """
    background = scene(size, rng)
    extent = int(size * rng.uniform(*look.extent))
    figure = render(silhouette, extent, rng)
    left = int(rng.uniform(-0.04, 1.04) * (size - extent))
    top = int(rng.uniform(0.0, 1.1) * (size - extent))
    placed = Image.new("L", (size, size), 0)
    placed.paste(figure, (left, top))
    alpha = np.asarray(placed, dtype=np.float32) / 255
    surface = plumage(texture, size, rng)
    image = blend(background, surface, (alpha * rng.uniform(*look.visibility)).astype(np.float32))
    exposed = image * rng.uniform(0.8, 1.1) + rng.normal(0, 0.02, image.shape)
    return (exposed.clip(0, 1) * 255).round().astype(np.uint8), alpha > 0.5
