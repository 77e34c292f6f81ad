"""images.h5 with true masks, and an ERM with random weights: what saliency and features start from."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import graph, store
from pipeline.compute.context import Context
from pipeline.params.features import FeaturesParams
from pipeline.params.masks import MasksParams
from pipeline.params.originals import OriginalsParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.project import Project
from pipeline.schemas.images import SCHEMA
from pipeline.spec import IMAGENET, ModelSpec
from pipeline.steps.features import features
from pipeline.steps.masks import masks
from pipeline.steps.originals import originals
from pipeline.steps.saliency import saliency
from tests import cached
from tests.cached import CORES, MAPS
from tests.networks import settled

COUNTS = {0: (40, 6, 4, 20), 1: (6, 6, 6, 6), 2: (8, 8, 8, 8)}  # images of each group in train, val and test
STORED, SIDE = 72, 64
NAMES = {"classes": ("cat", "dog"), "attributes": ("day", "night")}
SALIENCY = SaliencyParams(**MAPS.model_dump(), most_constant=1.0)
MASKS = MasksParams(**CORES.model_dump(), external="masks", previews=4)
RETRAINING_SET = RetrainingSetParams(balance="none", seed=0)
FEATURES = cached.FEATURES.model_copy(update={"validation_draws": 2, "batch_size": 16})


def write_project(data: Path, encoded: bool = False) -> Project:
    """Squares on noise in images.h5, a square's place is its true mask; and erm/.

    Args:
        encoded: whether images.h5 has the images encoded.
    """
    project = graph.project(data)
    rng = np.random.default_rng(0)
    group = np.concatenate([np.repeat(np.arange(4), counts) for counts in COUNTS.values()])
    split = np.repeat(list(COUNTS), [sum(counts) for counts in COUNTS.values()])
    image = rng.integers(0, 160, (len(group), STORED, STORED, 3), np.uint8)
    foreground = np.zeros(image.shape[:3], bool)
    for row, (top, left) in enumerate(rng.integers(5, 35, (len(group), 2))):
        foreground[row, top : top + 30, left : left + 30] = True
    image[foreground] += 90
    with store.create(data / "images.h5", "images", SCHEMA, {"to_stored": "squash"}, {}, **NAMES) as artefact:
        if encoded:
            write_pictures(artefact, image)
        else:
            artefact.write("image", image)
        artefact.write("label", group // 2)
        artefact.write("attribute", group % 2)
        artefact.write("split", split)
        artefact.write("path", [f"{row}.jpg" for row in range(len(group))])
        artefact.write("foreground", foreground)
        artefact.write("has_foreground", np.ones(len(group), bool))
    tensors = {name: t.numpy() for name, t in settled("shufflenet_v2_x0_5", 2).state_dict().items()}
    write_erm(project, tensors)
    return project


def write_pictures(artefact: store.Writer, image: NDArray[np.uint8]) -> None:
    """Write images (N, H, W, 3) encoded."""
    sizes = store.Sizes()
    kept = sizes.at(0, len(image)).write(image)
    sizes.add(kept)
    artefact.write_pictures("image", sizes, [kept["packed"]])


def write_erm(project: Project, tensors: dict[str, Any], **names: tuple[str, ...]) -> None:
    """The model folder erm/ with these tensors, and perhaps with other `classes`."""
    spec = ModelSpec(
        architecture="shufflenet_v2_x0_5",
        **(NAMES | names),
        stored_size=STORED,
        to_stored="squash",
        input_size=SIDE,
        to_input="center_crop",
        normalization=IMAGENET,
    )
    with project.open("images") as given, store.create_folder(project.path("erm")) as folder:
        store.write_model(folder, "erm", tensors, spec, {}, given.digests("images"))


def context(project: Project) -> Context:
    return Context("cpu", project.data / "scratch")


def make_maps(project: Project, balance: str = "none", draw_seed: int = 0, **changes: object) -> Path:
    """Run stage saliency with SALIENCY but for the changes; maps.h5."""
    chosen = RetrainingSetParams(balance=balance, seed=draw_seed)
    params = SaliencyParams(**{**SALIENCY.model_dump(), **changes})
    with project.open("images", "erm") as given:
        saliency(given, project.path("maps"), chosen, params, context(project))
    return project.path("maps")


def make_masks(
    project: Project, balance: str = "none", draw_seed: int = 0, maps: bool = True, **changes: object
) -> Path:
    """Run stages saliency and masks with SALIENCY and MASKS but for the changes; masks.h5.

    Args:
        maps: whether stage saliency runs too, or maps.h5 is taken as it is there.
    """
    of_masks = {key: changes.pop(key) for key in MasksParams.model_fields if key in changes}
    if maps:
        make_maps(project, balance, draw_seed, **changes)
    params = MasksParams(**{**MASKS.model_dump(), **of_masks})
    with project.open("images", "erm", "maps") as given:
        masks(given, project.path("masks"), params, context(project))
    return project.path("masks")


def make_originals(project: Project, balance: str = "none", precision: str = "float32") -> Path:
    """Run stage originals; originals.h5."""
    chosen, params = RetrainingSetParams(balance=balance, seed=0), OriginalsParams(precision=precision)
    with project.open("images", "erm") as given:
        originals(given, project.path("originals"), chosen, params, context(project))
    return project.path("originals")


def make_features(project: Project, balance: str = "none", originals: bool = True, **changes: object) -> Path:
    """Run stages originals and features with FEATURES but for the changes; features.h5.

    Args:
        originals: whether stage originals runs too, or originals.h5 is taken as it is there.
    """
    params = FeaturesParams(**{**FEATURES.model_dump(), **changes})
    if originals:
        make_originals(project, balance, params.precision)
    with project.open("images", "erm", "originals", "masks") as given:
        features(given, project.path("features"), params, context(project))
    return project.path("features")
