"""Stage examples: the contents of the report that retraining does not change.

These are training images with their maps, cores and interventions; how well maps and masks cover the true
foregrounds (paper Table 1); and, for test images that ERM gets wrong, the map of each feature. So after a new
α or β, the report is made without the network.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.device import forward_batch
from pipeline.method import gradient_maps
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.params.examples import ExamplesParams
from pipeline.project import Opened
from pipeline.results.blocks import logits
from pipeline.results.coverage import by_group
from pipeline.results.pictures import as_rgb, input_pixels, training_example
from pipeline.schemas.examples import SCHEMA

# The fields of `TrainingExample` that are pictures, in their order in examples.h5.
PICTURES = ("original", "map", "core", "masked", "combined")


def examples(given: Opened, out: Path, params: ExamplesParams, context: Context) -> None:
    """Write examples.h5.

    Training images are taken in turn from every group, and within a group from the images that ERM gets right
    and from those that it gets wrong. Test images are images that ERM gets wrong, in turn from every group.

    Args:
        given: images, erm, masks and features.
    """
    images, masks, erm = given.file("images"), given.file("masks"), given.model("erm")
    group, right = _judged(given, "train")
    positions = spread(2 * group + right, params.training, params.seed)
    shown = [_pictures(given, int(position)) for position in positions]
    group, right = _judged(given, "test")
    wrong = np.flatnonzero(~right)
    mistakes = wrong[spread(group[wrong], params.mistakes, params.seed)]
    pixels = input_pixels(images, given.file("features")["test/row"][:][mistakes], erm.spec)
    maps = _maps(classifier.load(erm.spec, erm.read(), context.on), pixels, context.on)
    table = [asdict(row) for row in by_group(images, masks, erm.spec) if row.n]
    made_from = given.digests("images", "erm", "masks", "features")
    side = erm.spec.input_size
    with store.create(out, "examples", SCHEMA, params.model_dump(), made_from, coverage=table) as file:
        file.write("train/position", positions)
        file.write("train/picture", np.array(shown, np.uint8).reshape(-1, len(PICTURES), side, side, 3))
        file.write("test/position", mistakes)
        file.write("test/image", as_rgb(pixels))
        file.write("test/map", maps)


def _judged(given: Opened, split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For every row of a split: its group, and whether ERM is right."""
    features = given.file("features")
    label = features[f"{split}/label"][:]
    seen = logits(given.model("erm").head(), features[f"{split}/original"])[0].argmax(-1)
    described = given.groups.described(label, features[f"{split}/attribute"][:])
    return described.index, np.asarray(seen == label)


def _pictures(given: Opened, position: int) -> list[NDArray[np.uint8]]:
    """The pictures of the training image at a position of masks.h5."""
    example = training_example(given, position)
    return [getattr(example, name) for name in PICTURES]


@torch.no_grad()
def _maps(model: Classifier, pixels: Tensor, on: torch.device) -> NDArray[np.float32]:
    """(n, 3, S, S) uint8 on the input grid to `gradient_maps.per_feature`, (n, D, h, w)."""
    if not len(pixels):
        return np.empty((0, model.trunk.width, 1, 1), np.float32)
    found = []
    for start in range(0, len(pixels), forward_batch(on)):
        batch = pixels[start : start + forward_batch(on)].to(on)
        state = model.encode(model.input(batch))
        found.append(gradient_maps.per_feature(model.trunk, state).cpu().numpy())
    return np.concatenate(found)


def spread(kind: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` positions in `kind` (n,), sorted; drawn with a seed, in turn from every kind."""
    rng = np.random.default_rng(seed)
    queues = [rng.permutation(np.flatnonzero(kind == each)).tolist() for each in np.unique(kind)]
    taken: list[int] = []
    while len(taken) < count and any(queues):
        for queue in queues:
            if queue and len(taken) < count:
                taken.append(queue.pop())
    return np.sort(np.array(taken, np.int64))
