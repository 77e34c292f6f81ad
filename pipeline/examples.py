"""Stage examples: what the report shows of the ERM classifier, and what retraining does not change.

Single images, how far maps and masks lie on the true foregrounds (paper Table 1), and for test images that ERM
gets wrong, what each feature adds to the map of any head. So a new α or β makes a new report without running the network.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.device import forward_batch
from pipeline.method import xgradcam
from pipeline.metrics import Groups
from pipeline.network import backbone
from pipeline.network.backbone import Classifier
from pipeline.network.inputs import normalize
from pipeline.params import ExamplesParams
from pipeline.results.coverage import coverage, input_grid
from pipeline.results.pictures import training_example
from pipeline.results.scores import head_logits
from pipeline.store import Artefact

PICTURES = ("original", "heat", "core", "masked", "combined")  # of a training image, fields of `TrainingExample`


def examples(
    images_path: Path, erm_path: Path, masks_path: Path, features_path: Path, out: Path, params: ExamplesParams, on: torch.device
) -> None:
    """Write examples.h5.

    Training images come in turn from every group and from those that ERM gets right and wrong, as far as there are; test images
    from those that ERM gets wrong, in turn from every group.
    """
    with (
        store.open_artefact(images_path, "images") as images,
        store.open_artefact(masks_path, "masks", {"images": images.digest}) as masks,
        store.open_artefact(features_path, "features", {"images": images.digest, "masks": masks.digest}) as features,
    ):
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        features.provenance.require("features", features_path, {"erm": erm.digest})
        head, groups = erm.head(), Groups.of(images)

        def judged(split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
            """Group, and whether ERM is right, of every row of a split."""
            label = features[f"{split}/label"][:]
            seen = head_logits(features[f"{split}/original"][:], *head).argmax(-1)
            return groups.described(label, features[f"{split}/attribute"][:]).index, seen == label

        group, right = judged("train")
        samples = spread(2 * group + right, params.training, params.seed)
        shown = [training_example(images, masks, features, int(sample)) for sample in samples]
        group, right = judged("test")
        wrong = np.flatnonzero(~right)
        mistakes = wrong[spread(group[wrong], params.mistakes, params.seed)]
        pixels, maps = _maps(images, backbone.load(erm, on), features["test/row"][:][mistakes], on)
        side = images.provenance.params["input_size"]
        made_from = {"images": images.digest, "erm": erm.digest, "masks": masks.digest, "features": features.digest}
        table = [asdict(row) for row in coverage(images, masks) if row.n]
        with store.create(out, "examples", params.model_dump(), made_from, coverage=table) as file:
            file.write("train/sample", samples)
            pictures = [[getattr(example, name) for name in PICTURES] for example in shown]
            file.write("train/picture", np.array(pictures, np.uint8).reshape(-1, len(PICTURES), side, side, 3))
            file.write("test/sample", mistakes)
            file.write("test/image", pixels)
            file.write("test/map", maps)


@torch.no_grad()
def _maps(images: Artefact, model: Classifier, rows: NDArray[np.int64], on: torch.device) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pixels (n, H, W, 3) on the input grid and `xgradcam.per_feature` (n, C, h, w) of rows of images.h5."""
    pixels = input_grid(images, images.rows("image", rows))
    batches = pixels.split(forward_batch(on)) if len(pixels) else ()
    found = [xgradcam.per_feature(model.activations(normalize(batch.to(on)))).cpu().numpy() for batch in batches]
    none = np.empty((0, model.head.in_features, 1, 1), np.float32)
    return pixels.permute(0, 2, 3, 1).numpy(), np.concatenate(found) if found else none


def spread(kind: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` positions, in turn from every kind that occurs; seeded."""
    rng = np.random.default_rng(seed)
    queues = [rng.permutation(np.flatnonzero(kind == each)).tolist() for each in np.unique(kind)]
    taken: list[int] = []
    while len(taken) < count and any(queues):
        for queue in queues:
            if queue and len(taken) < count:
                taken.append(queue.pop())
    return np.sort(np.array(taken, np.int64))
