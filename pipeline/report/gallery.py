"""The report's gallery: training images with their interventions, test images that ERM gets wrong with the maps of both heads."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.metrics import Groups
from pipeline.results import visual
from pipeline.results.scores import head_logits
from pipeline.store import Artefact, ModelFolder

SIDE = 176  # pixels of a picture on the page
OUTCOMES = ("both right", "mended", "broken", "both wrong")  # ERM's answer against MaC's


@dataclass(frozen=True)
class Panel:
    """A picture; `toggles` if it gives way to the plain image."""

    caption: str
    uri: str
    alt: str
    toggles: bool = False


@dataclass(frozen=True)
class Card:
    """One image of the gallery."""

    row: int
    path: str
    split: str
    group: str
    outcome: str
    panels: list[Panel]


@dataclass(frozen=True)
class Sources:
    """What pictures are made from, all opened and fitting together."""

    images: Artefact
    masks: Artefact
    features: Artefact
    examples: Artefact
    erm: ModelFolder
    retrained: ModelFolder


def gallery(sources: Sources) -> list[Card]:
    """A card of every image in examples.h5, with what both heads say of it."""
    images, masks, features, examples = sources.images, sources.masks, sources.features, sources.examples
    heads = [folder.head() for folder in (sources.erm, sources.retrained)]
    groups = Groups.of(images)
    paths = images["path"]

    def judged(split: str) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.str_]]:
        """Rows of images.h5, group names and outcomes of a split."""
        label = features[f"{split}/label"][:]
        x = features[f"{split}/original"][:]
        before, after = (head_logits(x, *head).argmax(-1) == label for head in heads)
        described = groups.described(label, features[f"{split}/attribute"][:])
        outcome = np.select([before & after, ~before & after, before & ~after], OUTCOMES[:3], OUTCOMES[3])
        return features[f"{split}/row"][:], np.array(described.names)[described.index], outcome

    def card(split: str, row: int, group: str, outcome: str, panels: list[Panel]) -> Card:
        return Card(row, paths[row].decode(), split, group, outcome, panels)

    rows, group, outcome = judged("train")
    cards = []
    for sample, pictures in zip(examples["train/sample"][:], examples["train/picture"], strict=True):
        target, partner = groups.classes[int(masks["target"][sample])], group[features["train/partner"][0, sample]]
        panels = [
            Panel("image", encoded(pictures[0]), f"training image of {group[sample]}"),
            Panel(f"map for {target}", encoded(pictures[1]), "xGradCAM map, bright where the class is seen", True),
            Panel("mask", encoded(pictures[2]), "the core in colour, the rest dimmed", True),
            Panel("masked", encoded(pictures[3]), "the core on a plain fill"),
            Panel(f"combined, on {partner}", encoded(pictures[4]), f"the core on an image of {partner}"),
        ]
        cards.append(card("train", int(rows[sample]), str(group[sample]), str(outcome[sample]), panels))

    rows, group, outcome = judged("test")
    for number, sample in enumerate(examples["test/sample"][:]):
        image, per_feature, label = examples["test/image"][number], examples["test/map"][number], features["test/label"][sample]
        before, after = visual.heat_over(image, [upsampled(np.tensordot(weight[label], per_feature, 1), len(image)) for weight, _ in heads])
        panels = [
            Panel("image", encoded(image), f"test image of {group[sample]}"),
            Panel("ERM looks at", encoded(before), "map of its class under the ERM head, over the image", True),
            Panel("MaC looks at", encoded(after), "map of its class under the retrained head, over the image", True),
        ]
        cards.append(card("test", int(rows[sample]), str(group[sample]), str(outcome[sample]), panels))
    return cards


def upsampled(scores: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A map (h, w) to (side, side), bilinear: what `masks.upsample` gives, without importing torch."""
    return np.asarray(Image.fromarray(scores).resize((side, side), Image.Resampling.BILINEAR))


def encoded(picture: visual.Picture) -> str:
    """A small JPEG as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
