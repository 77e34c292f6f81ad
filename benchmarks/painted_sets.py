"""Painted sets, on some of which the method should help. They differ in where the cue lies.

Each has two classes (the birds of the demo) and a cue of two values that goes with the class in training and
validation, and is independent of it in the test split. They are written in the layout of Waterbirds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.demo import scenes, silhouettes
from pipeline.demo.painting import Look, paint
from pipeline.demo.waterbirds_layout import LOOK, SIZE

Pixels = NDArray[np.uint8]
Painted = tuple[Pixels, NDArray[np.bool_]]
# An image and its true mask, for a class and a value of the cue.
Painter = Callable[[int, int, np.random.Generator], Painted]

TRAIN, VALIDATION, TEST = 500, 250, 400  # images of each split
ANY_TEXTURE = ("plain", "stripes", "spots", "mottled")
CUE_TEXTURES = ("stripes", "spots")


@dataclass(frozen=True)
class PaintedSet:
    """A set to be painted.

    Attributes:
        name: where the cue lies.
        correlation: the share of training and validation images whose cue is that of their class.
        painter: paints one image.
    """

    name: str
    correlation: float
    painter: Painter

    def write(self, folder: Path, seed: int) -> None:
        """Paint it into `folder`, as metadata.csv, images and their true masks."""
        (folder / "segmentations/birds").mkdir(parents=True)
        (folder / "birds").mkdir()
        lines = ["img_id,img_filename,y,split,place,place_filename"]
        for number, (split, label, cue) in enumerate(self._rows()):
            pixels, mask = self.painter(label, cue, np.random.default_rng([seed, number]))
            name = f"birds/{number:05d}"
            Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=90)
            Image.fromarray(mask).save(folder / f"segmentations/{name}.png")
            lines.append(f"{number + 1},{name}.jpg,{label},{split},{cue},")
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")

    def _rows(self) -> Iterator[tuple[int, int, int]]:
        """Split, class and cue of every image; both classes have the same number of images."""
        for split, count, correlation in (
            (0, TRAIN, self.correlation),
            (1, VALIDATION, self.correlation),
            (2, TEST, 0.5),
        ):
            for label in (0, 1):
                agreeing = round(count / 2 * correlation)
                for number in range(count // 2):
                    yield split, label, label if number < agreeing else 1 - label


def scene(label: int, cue: int, rng: np.random.Generator) -> Painted:
    """The cue is the scene, as in Waterbirds."""
    return _bird(label, scenes.PLACES[cue], _any(rng), LOOK, rng)


def scene_behind_a_faint_bird(label: int, cue: int, rng: np.random.Generator) -> Painted:
    """The cue is the scene, and the bird can hardly be seen."""
    return _bird(label, scenes.PLACES[cue], _any(rng), replace(LOOK, visibility=(0.12, 0.3)), rng)


def texture(label: int, cue: int, rng: np.random.Generator) -> Painted:
    """The cue is the bird's texture: it lies on the object itself."""
    return _bird(label, _any_place(rng), CUE_TEXTURES[cue], LOOK, rng)


def corner(label: int, cue: int, rng: np.random.Generator) -> Painted:
    """The cue is a small coloured square in a corner."""
    pixels, mask = _bird(label, _any_place(rng), _any(rng), LOOK, rng)
    side = SIZE // 6
    pixels[4 : 4 + side, 4 : 4 + side] = ((230, 40, 40), (40, 40, 230))[cue]
    mask[4 : 4 + side, 4 : 4 + side] = False
    return pixels, mask


def stacked(label: int, cue: int, rng: np.random.Generator) -> Painted:
    """As in Dominoes: the upper half is another object that is easy to tell, the lower half is the bird."""
    pixels, mask = _bird(label, scenes.wall, _any(rng), LOOK, rng)
    half = SIZE // 2
    lower = np.asarray(Image.fromarray(pixels).resize((SIZE, half)))
    upper = np.full((half, SIZE, 3), 20, np.uint8)
    side = SIZE // 5
    top, left = rng.integers(0, half - side), rng.integers(0, SIZE - side)
    upper[top : top + side, left : left + side] = rng.integers(150, 255, 3)
    if cue:  # a ring, otherwise a full square
        inner = side // 4
        upper[top + inner : top + side - inner, left + inner : left + side - inner] = 20
    small = np.asarray(Image.fromarray(mask).resize((SIZE, half), Image.Resampling.NEAREST))
    return np.concatenate([upper, lower]), np.concatenate([np.zeros_like(small), small])


def _bird(label: int, place: scenes.Scene, surface: str, look: Look, rng: np.random.Generator) -> Painted:
    return paint(silhouettes.BIRDS[label], place, surface, SIZE, look, rng)


def _any(rng: np.random.Generator) -> str:
    return ANY_TEXTURE[rng.integers(len(ANY_TEXTURE))]


def _any_place(rng: np.random.Generator) -> scenes.Scene:
    return scenes.PLACES[rng.integers(len(scenes.PLACES))]


SETS = (
    *(PaintedSet("scene", share, scene) for share in (0.5, 0.8, 0.9, 0.95, 0.98, 1.0)),
    *(PaintedSet("faint bird", share, scene_behind_a_faint_bird) for share in (0.8, 0.95)),
    *(PaintedSet("texture", share, texture) for share in (0.8, 0.95, 0.98)),
    *(PaintedSet("corner", share, corner) for share in (0.9, 0.98)),
    *(PaintedSet("stacked", share, stacked) for share in (0.9, 0.98)),
)
