"""Silhouettes: two kinds of bird for the demo, and ten other things for pretraining.

A silhouette is painted in white on a black square. Its proportions and its pose are random. Coordinates go
from 0 to 1, y points down, and the figure faces right.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]


class Pen:
    """Paints filled shapes, with coordinates from 0 to 1, into a square image of `size` pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.image = Image.new("L", (size, size), 0)
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[Point]) -> None:
        """A filled polygon with these corners."""
        self._draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=255)

    def ellipse(self, x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> None:
        """An ellipse of radii (rx, ry) around (x, y), turned by `angle` radians."""
        t = np.linspace(0, 2 * np.pi, 40)
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = rx * np.cos(t), ry * np.sin(t)
        self.polygon(list(zip(x + u * cos - v * sin, y + u * sin + v * cos, strict=True)))

    def stroke(self, points: Sequence[Point], width: float) -> None:
        """A thick line through `points`.

        Three points make a smooth curve; the second one is its control point.
        """
        if len(points) == 3:
            t = np.linspace(0, 1, 16)[:, None]
            p = np.asarray(points)
            points = [(x, y) for x, y in (1 - t) ** 2 * p[0] + 2 * t * (1 - t) * p[1] + t**2 * p[2]]
        pixels = [(x * self.size, y * self.size) for x, y in points]
        self._draw.line(pixels, fill=255, width=max(1, round(width * self.size)), joint="curve")


def landbird(pen: Pen, rng: np.random.Generator) -> None:
    """A perching bird: a round body, a head close to it, a short beak, a level or raised tail, short legs."""
    r = rng.uniform(0.17, 0.21)
    tilt = rng.uniform(-0.7, -0.25)
    x, y = 0.48, 0.55
    pen.ellipse(x, y, r * 1.25, r, tilt)
    hx, hy = x + r * rng.uniform(0.85, 1.05), y - r * rng.uniform(1.0, 1.25)
    hr = r * rng.uniform(0.52, 0.62)
    pen.ellipse(hx, hy, hr, hr)
    beak = rng.uniform(0.5, 0.9) * hr
    pen.polygon(
        [(hx + hr * 0.8, hy - hr * 0.35), (hx + hr + beak, hy + hr * 0.1), (hx + hr * 0.8, hy + hr * 0.45)]
    )
    tail = rng.uniform(0.15, 0.24)
    tx, ty = x - r * 0.9, y + r * 0.35
    pen.polygon(
        [
            (tx + 0.05, ty - 0.06),
            (tx - tail, ty + tail * rng.uniform(-0.2, 0.7)),
            (tx - tail * 0.8, ty + tail * 0.8 + 0.03),
            (tx + 0.06, ty + 0.05),
        ]
    )
    for dx in (-0.03, 0.05):
        pen.stroke([(x + dx, y + r * 0.8), (x + dx + 0.01, y + r + rng.uniform(0.05, 0.08))], 0.018)


def waterbird(pen: Pen, rng: np.random.Generator) -> None:
    """A swimming or wading bird: a body like a boat, a raised tail, a long thick neck, a long pointed beak.

    A wading bird has long legs; a swimming bird has none.
    """
    wading = rng.random() < 0.5
    top = 0.42 if wading else 0.56
    depth = rng.uniform(0.17, 0.22)
    stern, bow = rng.uniform(0.06, 0.12), rng.uniform(0.62, 0.67)
    pen.polygon(
        [
            (stern, top - rng.uniform(0.06, 0.12)),
            (stern + 0.12, top + 0.02),
            (stern + 0.24, top - rng.uniform(0.0, 0.04)),
            (bow, top),
            (bow + 0.04, top + depth * 0.5),
            (bow - 0.05, top + depth),
            (stern + 0.14, top + depth),
        ]
    )
    width = rng.uniform(0.09, 0.12)
    hx, hy = bow + rng.uniform(-0.04, 0.06), top - rng.uniform(0.24, 0.32)
    pen.stroke([(bow - 0.05, top + depth * 0.6), (bow + rng.uniform(0.1, 0.2), top - 0.1), (hx, hy)], width)
    beak = rng.uniform(0.16, 0.22)
    drop = rng.uniform(0.0, 0.06)
    pen.polygon(
        [
            (hx - width * 0.6, hy - width * 0.55),
            (hx + width * 0.5, hy - width * 0.5),
            (hx + beak, hy + drop),
            (hx, hy + width * 0.5),
        ]
    )
    if wading:
        for x in (0.38, 0.47):
            knee = rng.uniform(-0.05, 0.05)
            foot = (x - 0.01, top + depth + rng.uniform(0.25, 0.32))
            pen.stroke([(x, top + depth * 0.9), (x + knee, top + depth + 0.14), foot], 0.025)


def fish(pen: Pen, rng: np.random.Generator) -> None:
    """A fish with a tail and a back fin."""
    rx, ry = rng.uniform(0.24, 0.3), rng.uniform(0.11, 0.18)
    pen.ellipse(0.54, 0.5, rx, ry)
    tail = rng.uniform(0.1, 0.17)
    pen.polygon([(0.58 - rx, 0.5), (0.42 - rx, 0.5 - tail), (0.46 - rx, 0.5), (0.42 - rx, 0.5 + tail)])
    pen.polygon([(0.45, 0.52 - ry), (0.52, 0.42 - ry), (0.65, 0.53 - ry)])


def cat(pen: Pen, rng: np.random.Generator) -> None:
    """A sitting cat with pointed ears and a raised tail."""
    pen.ellipse(0.47, 0.66, rng.uniform(0.15, 0.2), 0.22)
    pen.ellipse(0.52, 0.36, 0.14, 0.12)
    for dx in (-0.09, 0.09):
        pen.polygon(
            [(0.52 + dx - 0.05, 0.3), (0.52 + dx * 1.2, rng.uniform(0.14, 0.2)), (0.52 + dx + 0.05, 0.3)]
        )
    pen.stroke([(0.35, 0.82), (rng.uniform(0.1, 0.2), 0.8), (0.17, rng.uniform(0.4, 0.6))], 0.05)


def horse(pen: Pen, rng: np.random.Generator) -> None:
    """A standing horse."""
    pen.ellipse(0.45, 0.48, 0.22, rng.uniform(0.1, 0.13))
    pen.stroke([(0.6, 0.45), (0.74, 0.25)], rng.uniform(0.1, 0.13))
    pen.ellipse(0.8, 0.25, 0.1, 0.05, rng.uniform(0.3, 0.7))
    for x in (0.29, 0.37, 0.55, 0.62):
        pen.stroke([(x, 0.5), (x + rng.uniform(-0.06, 0.06), 0.84)], 0.045)
    pen.stroke([(0.25, 0.44), (0.12, 0.5), (0.13, 0.66)], 0.04)


def tortoise(pen: Pen, rng: np.random.Generator) -> None:
    """A tortoise under a high shell."""
    t = np.linspace(np.pi, 2 * np.pi, 30)
    height = rng.uniform(0.2, 0.3)
    pen.polygon([(0.48 + 0.27 * np.cos(a), 0.62 + height * np.sin(a)) for a in t])
    pen.ellipse(0.81, rng.uniform(0.52, 0.6), 0.075, 0.055)
    for x in (0.3, 0.64):
        pen.stroke([(x, 0.6), (x + rng.uniform(-0.03, 0.03), 0.73)], 0.08)


def butterfly(pen: Pen, rng: np.random.Generator) -> None:
    """A butterfly with open wings."""
    upper, lower = rng.uniform(0.15, 0.2), rng.uniform(0.1, 0.14)
    for side in (-1, 1):
        pen.ellipse(0.5 + side * 0.19, 0.38, upper, 0.13, side * -0.6)
        pen.ellipse(0.5 + side * 0.14, 0.62, lower, 0.1, side * 0.6)
        pen.stroke([(0.5, 0.32), (0.5 + side * 0.1, 0.16)], 0.015)
    pen.ellipse(0.5, 0.5, 0.035, 0.22)


def snail(pen: Pen, rng: np.random.Generator) -> None:
    """A snail with its shell."""
    r = rng.uniform(0.17, 0.22)
    pen.ellipse(0.44, 0.5, r, r)
    pen.ellipse(0.5, 0.72, 0.32, 0.055)
    pen.stroke([(0.74, 0.72), (0.8, 0.62), (0.8, rng.uniform(0.46, 0.54))], 0.07)
    for dx in (-0.04, 0.05):
        pen.stroke([(0.8, 0.52), (0.8 + dx, 0.4)], 0.018)


def tree(pen: Pen, rng: np.random.Generator) -> None:
    """A tree with a round crown."""
    pen.stroke([(0.5, 0.55), (0.5, 0.9)], rng.uniform(0.06, 0.1))
    for _ in range(5):
        pen.ellipse(0.5 + rng.uniform(-0.15, 0.15), 0.36 + rng.uniform(-0.12, 0.12), 0.15, 0.13)


def boat(pen: Pen, rng: np.random.Generator) -> None:
    """A sailing boat."""
    pen.polygon([(0.14, 0.64), (0.86, 0.64), (0.74, rng.uniform(0.76, 0.82)), (0.24, 0.78)])
    mast = rng.uniform(0.44, 0.54)
    pen.stroke([(mast, 0.66), (mast, 0.14)], 0.025)
    pen.polygon([(mast + 0.02, 0.16), (mast + rng.uniform(0.2, 0.28), 0.58), (mast + 0.02, 0.58)])
    pen.polygon([(mast - 0.02, 0.24), (mast - 0.18, 0.58), (mast - 0.02, 0.58)])


def giraffe(pen: Pen, rng: np.random.Generator) -> None:
    """A giraffe."""
    pen.ellipse(0.4, 0.56, 0.17, rng.uniform(0.08, 0.11))
    hx, hy = rng.uniform(0.64, 0.74), rng.uniform(0.14, 0.2)
    pen.stroke([(0.52, 0.52), (hx - 0.02, hy + 0.02)], rng.uniform(0.06, 0.08))
    pen.ellipse(hx + 0.04, hy, 0.07, 0.04, rng.uniform(0.2, 0.5))
    for x in (0.27, 0.33, 0.46, 0.52):
        pen.stroke([(x, 0.58), (x + rng.uniform(-0.04, 0.04), 0.88)], 0.04)


def watering_can(pen: Pen, rng: np.random.Generator) -> None:
    """A watering can."""
    half, top = rng.uniform(0.14, 0.18), rng.uniform(0.42, 0.5)
    pen.polygon(
        [(0.42 - half * 0.85, top), (0.42 + half * 0.85, top), (0.42 + half, 0.78), (0.42 - half, 0.78)]
    )
    tip = rng.uniform(0.28, 0.38)
    pen.stroke([(0.42 + half * 0.8, 0.72), (0.7, 0.62), (0.8, tip)], rng.uniform(0.05, 0.07))
    pen.polygon([(0.75, tip + 0.03), (0.87, tip - 0.06), (0.89, tip + 0.05)])
    pen.stroke([(0.42 - half * 0.8, top + 0.02), (0.14, 0.45), (0.42 - half, 0.72)], 0.035)


Silhouette = Callable[[Pen, np.random.Generator], None]
BIRDS: tuple[Silhouette, ...] = (landbird, waterbird)
OTHERS: tuple[Silhouette, ...] = (
    fish,
    cat,
    horse,
    tortoise,
    butterfly,
    snail,
    tree,
    boat,
    giraffe,
    watering_can,
)


def render(silhouette: Silhouette, size: int, rng: np.random.Generator) -> Image.Image:
    """A random figure on a square of `size` pixels, turned a little, facing left or right.

    Its mode is L; its edges are antialiased.
    """
    pen = Pen(size * 2)
    silhouette(pen, rng)
    image = pen.image.rotate(rng.uniform(-12, 12), resample=Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.resize((size, size), Image.Resampling.BOX)
