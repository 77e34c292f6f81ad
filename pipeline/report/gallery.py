"""The report's gallery: training images with their interventions, test images that ERM gets wrong with the maps of both heads."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline import backbone, visual
from pipeline.examples import held_out_examples, training_example
from pipeline.last_layer.heads import Heads
from pipeline.metrics import Groups
from pipeline.params import ReportParams
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
    erm: ModelFolder
    retrained: ModelFolder


def gallery(sources: Sources, params: ReportParams, on: torch.device) -> list[Card]:
    """Cards of training images, of every group and outcome as far as there are, and of test images that ERM gets wrong."""
    images, masks, features = sources.images, sources.masks, sources.features
    heads = [Heads.of(*folder.head()) for folder in (sources.erm, sources.retrained)]
    groups = Groups.of(images)
    paths = images["path"]

    def judged(split: str) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.str_]]:
        """Rows of images.h5, group names and outcomes of a split."""
        label = features[f"{split}/label"][:]
        x = torch.from_numpy(features[f"{split}/original"][:])
        before, after = (head.logits(x)[0, 0].argmax(-1).numpy() == label for head in heads)
        described = groups.described(label, features[f"{split}/attribute"][:])
        outcome = np.select([before & after, ~before & after, before & ~after], OUTCOMES[:3], OUTCOMES[3])
        return features[f"{split}/row"][:], np.array(described.names)[described.index], outcome

    cards = []
    rows, group, outcome = judged("train")
    for sample in spread(group, outcome, params.training_examples, params.seed):
        example = training_example(images, masks, features, int(sample))
        pictures = {
            "image": (example.original, f"training image of {example.group}"),
            f"map for {example.target}": (example.heat, "xGradCAM map, bright where the class is seen"),
            "mask": (example.core, "the core in colour, the rest dimmed"),
            "masked": (example.masked, "the core on a plain fill"),
            f"combined, on {example.partner_group}": (example.combined, f"the core on an image of {example.partner_group}"),
        }
        toggling = (f"map for {example.target}", "mask")
        panels = [Panel(name, encoded(picture), alt, name in toggling) for name, (picture, alt) in pictures.items()]
        cards.append(Card(int(rows[sample]), paths[int(rows[sample])].decode(), "train", str(group[sample]), str(outcome[sample]), panels))

    rows, group, outcome = judged("test")
    wrong = np.flatnonzero(np.isin(outcome, ("mended", "both wrong")))
    wrong = wrong[spread(group[wrong], outcome[wrong], params.mistakes, params.seed)]
    model = backbone.load(sources.erm, on)
    weights = heads[0].weight[0, 0], heads[1].weight[0, 0]
    for sample, held_out in zip(wrong, held_out_examples(images, model, weights, rows[wrong], on), strict=True):
        panels = [
            Panel("image", encoded(held_out.original), f"test image of {group[sample]}"),
            Panel("ERM looks at", encoded(held_out.before), "map of its class under the ERM head, over the image", True),
            Panel("MaC looks at", encoded(held_out.after), "map of its class under the retrained head, over the image", True),
        ]
        cards.append(Card(int(rows[sample]), paths[int(rows[sample])].decode(), "test", str(group[sample]), str(outcome[sample]), panels))
    return cards


def spread(group: NDArray[np.str_], outcome: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` positions, in turn from every pair of a group and an outcome that occurs; seeded."""
    rng = np.random.default_rng(seed)
    kinds = sorted(set(zip(group.tolist(), outcome.tolist(), strict=True)))
    queues = [rng.permutation(np.flatnonzero((group == g) & (outcome == o))).tolist() for g, o in kinds]
    taken: list[int] = []
    while len(taken) < count and any(queues):
        for queue in queues:
            if queue and len(taken) < count:
                taken.append(queue.pop())
    return np.sort(np.array(taken, np.int64))


def encoded(picture: visual.Picture) -> str:
    """A small JPEG as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
