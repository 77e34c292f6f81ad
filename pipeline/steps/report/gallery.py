"""The report's gallery: training images with their interventions, and both heads' maps of ERM's mistakes."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.project import Opened
from pipeline.results import visual
from pipeline.results.visual import RGB

SIDE = 176  # pixels of a picture on the page
OUTCOMES = ("both right", "mended", "broken", "both wrong")  # ERM's answer compared with MaC's


@dataclass(frozen=True)
class Panel:
    """One picture of a card.

    Attributes:
        uri: the picture as a data URI.
        alt: what it shows, in words.
        toggles: whether the reader can switch to the plain image.
    """

    caption: str
    uri: str
    alt: str
    toggles: bool = False


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Attributes:
        row, path: its row and path in images.h5.
        outcome: one of OUTCOMES.
    """

    row: int
    path: str
    split: str
    group: str
    outcome: str
    panels: list[Panel]


@dataclass(frozen=True)
class _Judged:
    """A split, and its images in examples.h5.

    Attributes:
        row, group: (N,), the row in images.h5 and the group of every image of the split.
        position, outcome: (n,), of its images in examples.h5.
    """

    split: str
    row: NDArray[np.int64]
    group: NDArray[np.str_]
    position: NDArray[np.int64]
    outcome: NDArray[np.str_]

    def card(self, given: Opened, number: int, panels: list[Panel]) -> Card:
        """The card of an image, by its number in examples.h5."""
        position = self.position[number]
        row = int(self.row[position])
        path = given.file("images")["path"][row].decode()
        return Card(row, path, self.split, str(self.group[position]), str(self.outcome[number]), panels)


def gallery(given: Opened) -> list[Card]:
    """A card for every image in examples.h5, with the outcome for ERM and MaC.

    Args:
        given: images, erm, masks, features, retrained and examples.
    """
    return [*_training_cards(given), *_test_cards(given)]


def _judged(given: Opened, split: str) -> _Judged:
    features, position = given.file("features"), given.file("examples")[f"{split}/position"][:]
    label, x = features[f"{split}/label"][:], features.rows(f"{split}/original", position)
    before = given.model("erm").head().logits(x)[0].argmax(-1) == label[position]
    after = given.model("retrained").head().logits(x)[0].argmax(-1) == label[position]
    described = given.groups.described(label, features[f"{split}/attribute"][:])
    outcome = np.select([before & after, ~before & after, before & ~after], OUTCOMES[:3], OUTCOMES[3])
    group = np.array(described.names)[described.index]
    return _Judged(split, features[f"{split}/row"][:], group, position, outcome)


def _training_cards(given: Opened) -> Iterator[Card]:
    judged, examples = _judged(given, "train"), given.file("examples")
    partners, targets = given.file("features")["train/partner"][0], given.file("masks")["target"][:]
    for number, position in enumerate(judged.position):
        original, heat, core, masked, combined = examples["train/picture"][number]
        target, group = given.groups.classes[int(targets[position])], judged.group[position]
        partner = judged.group[partners[position]]
        panels = [
            Panel("image", encoded(original), f"training image of {group}"),
            Panel(f"map for {target}", encoded(heat), "xGradCAM map, bright where the class is seen", True),
            Panel("core", encoded(core), "the core in colour, the rest dimmed", True),
            Panel("masked", encoded(masked), "the core on a plain fill"),
            Panel(f"combined, on {partner}", encoded(combined), f"the core on an image of {partner}"),
        ]
        yield judged.card(given, number, panels)


def _test_cards(given: Opened) -> Iterator[Card]:
    judged, examples = _judged(given, "test"), given.file("examples")
    labels = given.file("features")["test/label"][:]
    erm, mac = given.model("erm").head(), given.model("retrained").head()
    for number, position in enumerate(judged.position):
        image, per_feature = examples["test/image"][number], examples["test/map"][number]
        maps = []
        for head in (erm, mac):
            small = np.tensordot(head.weight[0, labels[position]], per_feature, 1)
            maps.append(upsampled(small, len(image)))
        before, after = visual.heat_over(image, maps)
        said = "map of its class under the {} head, over the image"
        panels = [
            Panel("image", encoded(image), f"test image of {judged.group[position]}"),
            Panel("ERM looks at", encoded(before), said.format("ERM"), True),
            Panel("MaC looks at", encoded(after), said.format("retrained"), True),
        ]
        yield judged.card(given, number, panels)


def upsampled(scores: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A map (h, w) to (side, side), bilinear: the same as `method.masks.upsample`, without PyTorch."""
    return np.asarray(Image.fromarray(scores).resize((side, side), Image.Resampling.BILINEAR))


def encoded(picture: RGB) -> str:
    """A small JPEG as a data URI."""
    buffer = io.BytesIO()
    small = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
