"""The classifiers at work on image files of any origin: `mac predict`, `mac explain`, and `pipeline.load_model`."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.datasets.sources import image_files, open_image, stored_image
from pipeline.errors import MacError
from pipeline.last_layer.heads import Heads
from pipeline.method import xgradcam
from pipeline.method.masks import pixel_count, top_k_mask, upsample
from pipeline.network import backbone
from pipeline.network.backbone import Classifier
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.results import sheets, visual
from pipeline.results.visual import Picture


@dataclass(frozen=True)
class Transform:
    """From an image file to what the model takes: the steps of the stages, in their order.

    Attributes:
        stored_size, to_stored: of prepare. input_size, to_input: of the model's input.
    """

    stored_size: int
    to_stored: Any
    input_size: int
    to_input: Any

    @classmethod
    def of(cls, folder: store.ModelFolder) -> "Transform":
        """What the model was trained with."""
        try:
            return cls(*(folder.spec[name] for name in ("stored_size", "to_stored", "input_size", "to_input")))
        except KeyError as error:
            raise MacError(f"{folder.path}: does not say {error}; it is of an earlier version, run 'mac train' again") from None

    def pixels(self, image: Image.Image | str | Path) -> Tensor:
        """(3, S, S) uint8 on the input grid.

        Raises:
            MacError: the file cannot be read as an image.
        """
        picture = image if isinstance(image, Image.Image) else open_image(Path(image))
        stored = torch.from_numpy(stored_image(picture, self.stored_size, self.to_stored).copy())
        return to_input_grid(stored[None], self.input_size, self.to_input)[0]

    def __call__(self, image: Image.Image | str | Path) -> Tensor:
        """(3, S, S) float32, normalised."""
        return normalize(self.pixels(image)[None])[0]


def load_model(path: str | Path, device: str = "cpu") -> tuple[Classifier, Transform]:
    """A model folder (`data/retrained`, `data/erm`) as a module in eval mode, and its transform.

    Returns:
        The module, (B, 3, S, S) float32 to logits (B, classes); and the transform, an image or its path to (3, S, S).

    Raises:
        MacError: no model folder, or a damaged one.

    >>> import pipeline
    >>> from PIL import Image
    >>> model, transform = pipeline.load_model("data/retrained")
    >>> probabilities = model(transform(Image.new("RGB", (300, 200)))[None]).softmax(-1)
    >>> round(float(probabilities.sum()), 3)
    1.0
    """
    folder = Path(path)
    opened = store.open_model(folder, store.model_kind(folder))
    return backbone.load(opened, torch.device(device)), Transform.of(opened)


@dataclass(frozen=True)
class Pair:
    """ERM and MaC: one frozen trunk, two heads."""

    trunk: Classifier
    transform: Transform
    classes: list[str]
    heads: Heads  # (2, 1, …): ERM, MaC
    on: torch.device

    @classmethod
    def load(cls, erm_path: Path, retrained_path: Path, on: torch.device) -> "Pair":
        """Both model folders.

        Raises:
            MacError: one is missing, or they do not belong together.
        """
        erm = store.open_model(erm_path, "erm")
        retrained = store.open_model(retrained_path, "retrained", {"erm": erm.digest})
        model = backbone.for_inference(backbone.load(erm, on), torch.float32)
        heads = Heads.of(*(np.stack(parts) for parts in zip(erm.head(), retrained.head(), strict=True))).to(on)
        return cls(model, Transform.of(erm), list(erm.spec["classes"]), heads, on)

    @torch.no_grad()
    def activations(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 to the last activation maps (B, C, h, w)."""
        return self.trunk.activations(normalize(pixels.to(self.on)))

    def probabilities(self, activations: Tensor) -> Tensor:
        """(B, 2, classes), of ERM and MaC."""
        return self.heads.logits(self.trunk.pool(activations))[:, 0].softmax(-1).transpose(0, 1)


@dataclass(frozen=True)
class Prediction:
    """What is said of a file: `probability` (2, classes) of ERM and MaC, or why it cannot be read."""

    path: Path
    probability: Tensor | None
    error: str = ""


def predict(pair: Pair, files: Sequence[Path]) -> Iterator[Prediction]:
    """Every file's prediction, in order, a batch at a time; files that cannot be read are told as such."""
    size = device.forward_batch(pair.on)

    def read(file: Path) -> Tensor | MacError:
        try:
            return pair.transform.pixels(file)
        except MacError as error:
            return error

    remaining = iter(files)
    with ThreadPoolExecutor() as pool:
        batch = list(islice(remaining, size))
        reading = [pool.submit(read, file) for file in batch]
        while batch:
            following = list(islice(remaining, size))
            found = [future.result() for future in reading]
            reading = [pool.submit(read, file) for file in following]  # while the network runs
            good = [pixels for pixels in found if isinstance(pixels, Tensor)]
            said = iter(pair.probabilities(pair.activations(torch.stack(good))).cpu() if good else ())
            for file, pixels in zip(batch, found, strict=True):
                yield Prediction(file, next(said)) if isinstance(pixels, Tensor) else Prediction(file, None, str(pixels))
            batch = following


def listed(paths: Sequence[str]) -> list[Path]:
    """Files as they are, image files of folders, and what a pattern such as `birds/*.jpg` finds; each once, in order.

    Raises:
        MacError: a path is not there, a pattern finds nothing, or a folder has no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        folder = Path(path)
        if folder.is_dir():
            members = [folder / file for file in image_files(folder, "")]
            if not members:
                raise MacError(f"{path}: no image file in this folder")
        else:
            members = [folder] if folder.is_file() else [Path(name) for name in sorted(glob(path, recursive=True))]  # noqa: PTH207 (a pattern may be absolute)
            if not members:
                raise MacError(f"{path}: no such file or folder, and no pattern that finds one")
        found |= dict.fromkeys(members)
    return list(found)


def explain(pair: Pair, files: Sequence[Path], top_k: float, target: str | None) -> Image.Image:
    """A row an image: where both heads look for a class, the core by ERM's map, and both heads' probabilities.

    Args:
        top_k: K of the core, as `saliency.top_k`.
        target: the class that the maps explain; None for the one that MaC sees.

    Raises:
        MacError: a file cannot be read, or there is no such class.
    """
    if target is not None and target not in pair.classes:
        raise MacError(f"--target {target}: no such class; there are {', '.join(pair.classes)}")
    rows = []
    for file in files:
        pixels = pair.transform.pixels(file)[None]
        activations = pair.activations(pixels)
        probability = pair.probabilities(activations)[0].cpu()
        label = pair.classes.index(target) if target is not None else int(probability[1].argmax())
        maps = [xgradcam.closed_form(activations, weight, torch.tensor([label], device=pair.on)) for weight in pair.heads.weight[:, 0]]
        large = [upsample(each, pair.transform.input_size).cpu() for each in maps]
        mask = top_k_mask(large[0], pixel_count(top_k, pair.transform.input_size))[0].numpy()
        image = pixels[0].permute(1, 2, 0).numpy()
        before, after = visual.heat_over(image, [each[0].numpy() for each in large])
        name = pair.classes[label]
        panels = {f"ERM: {name} here": before, "core": visual.overlay(image, mask), f"MaC: {name} here": after}
        rows.append(_row(file.name, image, panels, probability, pair.classes))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for number, row in enumerate(rows):
        sheet.paste(row, (0, sum(each.height for each in rows[:number])))
    return sheet


MOST_CLASSES = 5  # with a bar
_COLOURS = {"ERM": "#8a6d3b", "MaC": "#1f6f8b"}


def _row(name: str, image: Picture, panels: dict[str, Picture], probability: Tensor, classes: list[str]) -> Image.Image:
    strip = sheets.strip({name: image, **panels})
    bars = Image.new("RGB", (260, strip.height), "white")
    draw, font = ImageDraw.Draw(bars), ImageFont.load_default(14)
    likely = probability.amax(0).argsort(descending=True, stable=True)[:MOST_CLASSES].tolist()
    for place, label in enumerate(likely):
        top = 4 + place * 50
        draw.text((0, top), sheets.shortened(classes[label], 240, font), fill="black", font=font)
        for number, (head, colour) in enumerate(_COLOURS.items()):
            y, share = top + 19 + number * 14, float(probability[number, label])
            draw.rectangle((0, y, round(130 * share), y + 10), fill=colour)
            draw.text((136, y - 3), f"{head} {100 * share:.1f} %", fill="black", font=ImageFont.load_default(12))
    whole = Image.new("RGB", (strip.width + bars.width, strip.height), "white")
    whole.paste(strip, (0, 0))
    whole.paste(bars, (strip.width, 0))
    return whole
