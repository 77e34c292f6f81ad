"""Draws where two heads look in an image (`mac explain`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.datasets.sources import check_name
from pipeline.errors import MacError
from pipeline.method.masks import top_k_mask, upsample
from pipeline.method.pixels import pixel_count
from pipeline.results import sheets, visual
from pipeline.results.pictures import as_rgb
from pipeline.results.sides import Side
from pipeline.tools.prediction import Pair

MOST_CLASSES = 5  # most classes that are shown with their probabilities
_COLOURS = ("#8a6d3b", "#1f6f8b")  # for ERM, and for the other head
_WIDTH = 260  # width of the probabilities, pixels


def explain(
    pair: Pair,
    files: Sequence[Path],
    top_k: float | None,
    target: str | None,
    sides: Sequence[Side] | None = None,
    flip: bool = False,
) -> Image.Image:
    """One row for each image: the maps of both heads, the core from ERM's map, and both heads' probabilities.

    Args:
        files: the image files.
        top_k: K of the core, as in `saliency.top_k`; None for that of the knee, as in `saliency.size`.
        target: the class that the maps explain; None for the one that the second head predicts.
        sides: which pixels are the core of each class, as in `saliency.side`; None for the K highest.
        flip: whether maps are averaged with those of the mirror image, as in `saliency.flip`.

    Raises:
        MacError: a file cannot be read, there is no such class, or `top_k` does not fit the input grid.
    """
    if target is not None and target not in pair.classes:
        raise MacError(f"target {target}: no such class; there are {', '.join(pair.classes)}")
    k = None if top_k is None else pixel_count(top_k, pair.transform.spec.input_size)
    rows = [_row(pair, file, k, target, sides or ["core"] * len(pair.classes), flip) for file in files]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(
    pair: Pair, file: Path, k: int | None, target: str | None, sides: Sequence[Side], flip: bool
) -> Image.Image:
    check_name(file.name, str(file.parent))
    pixels, size = pair.transform.pixels(file), pair.transform.spec.input_size
    state = pair.state(pixels[None])
    probability = pair.probabilities(state)[0]
    label = int(probability[1].argmax()) if target is None else pair.classes.index(target)
    raw = pair.maps(state, label, pair.state(pixels[None].flip(3)) if flip else None)
    maps = [upsample(each, size)[0].cpu() for each in raw]
    top = pair.at_knee(pixels[None], raw[0], label) if k is None else top_k_mask(maps[0][None], k)
    core = (top if sides[label] == "core" else ~top)[0].cpu().numpy()
    image = as_rgb(pixels)
    before, after = visual.heat_over(image, [each.numpy() for each in maps])
    erm, other = (each.title for each in pair.heads)
    name = pair.classes[label]
    panels = {
        file.name: image,
        f"{erm}: {name} here": before,
        "core": visual.overlay(image, core),
        f"{other}: {name} here": after,
    }
    strip = sheets.strip(panels)
    by_head = {each.title: values for each, values in zip(pair.heads, probability, strict=True)}
    whole = Image.new("RGB", (strip.width + _WIDTH, strip.height), "white")
    whole.paste(strip, (0, 0))
    whole.paste(_bars(by_head, pair.classes, strip.height), (strip.width, 0))
    return whole


def _bars(probability: Mapping[str, NDArray[np.float32]], classes: Sequence[str], height: int) -> Image.Image:
    """The most probable classes; each class has one bar for each head.

    Args:
        probability: (classes,) for each head, by its title.
    """
    bars = Image.new("RGB", (_WIDTH, height), "white")
    draw, large, small = ImageDraw.Draw(bars), ImageFont.load_default(14), ImageFont.load_default(12)
    highest = np.max(list(probability.values()), axis=0)
    likely = np.argsort(-highest, kind="stable")[:MOST_CLASSES]
    for place, label in enumerate(likely):
        top = 4 + place * 50
        draw.text((0, top), sheets.shortened(classes[label], 240, large), fill="black", font=large)
        for number, (title, values) in enumerate(probability.items()):
            y, share = top + 19 + number * 14, float(values[label])
            draw.rectangle((0, y, round(130 * share), y + 10), fill=_COLOURS[number])
            said = sheets.shortened(f"{title} {100 * share:.1f} %", _WIDTH - 136, small)
            draw.text((136, y - 3), said, fill="black", font=small)
    return bars
