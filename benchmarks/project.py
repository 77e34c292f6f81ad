"""A project to measure on: random pixels and random weights, in artefacts that no stage made.

They have the layout of a real project, and say what they were made from as the stages do.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.engine import blocks
from pipeline.method import pairing
from pipeline.network import classifier
from pipeline.params.block import Precision
from pipeline.params.features import FeaturesParams
from pipeline.params.inputs import InputParams
from pipeline.params.masks import MasksParams
from pipeline.params.model import ModelParams
from pipeline.params.originals import OriginalsParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.params.train import TrainParams
from pipeline.project import Project
from pipeline.schemas import features as features_schema
from pipeline.schemas import images as images_schema
from pipeline.schemas import maps as maps_schema
from pipeline.schemas import masks as masks_schema
from pipeline.schemas import originals as originals_schema
from pipeline.spec import IMAGENET, ModelSpec
from pipeline.steps.features import features
from pipeline.steps.masks import masks
from pipeline.steps.originals import originals
from pipeline.steps.saliency import saliency

SIZE = 224  # side of the network's input, pixels
INPUTS = InputParams(input_size=SIZE, to_input="center_crop")
RETRAINING_SET = RetrainingSetParams(balance="none", seed=0)
SALIENCY = SaliencyParams(
    method="xgradcam",
    target="label",
    layer="last",
    flip=False,
    precision="float32",
    seed=0,
    most_constant=1.0,
)
MASKS = MasksParams(size="top_k", top_k=0.3, side="core", external="data/external_masks", previews=0)
FEATURES = FeaturesParams(
    draws=4, validation_draws=1, batch_size=32, low_loss=1.0, precision="float32", storage="float32", seed=0
)
TRAIN = TrainParams(
    epochs=1,
    batch_size=32,
    lr=0.001,
    momentum=0.9,
    weight_decay=0.001,
    schedule="constant",
    crop_scale=(0.7, 1.0),
    flip=True,
    precision="float32",
    select="last",
    hold_out=0.0,
    keep_epochs=[],
    seed=0,
)
RETRAIN = RetrainParams(
    solver="adam",
    alpha=2,
    beta=3,
    seeds=1,
    average=1,
    memory="auto",
    init="erm",
    standardize=False,
    class_weights="none",
    l2=0,
    epochs=10,
    lr=0.005,
    lr_step=5,
    lr_gamma=0.5,
)
SELECTION = SelectionParams(criterion="groups")
SWEEP = SweepParams(
    alphas=[0, 1, 2], betas=[0, 1, 2, 3, 4, 5], pick="auto", default=(1, 30), l2s=[0], seeds=5, average=1
)  # the paper's
GRID = list(product(SWEEP.alphas, SWEEP.betas))  # (α, β)
SEEDS = 5
CLASSES, ATTRIBUTES = ("class0", "class1"), ("a", "b")
BLOCK = 4096  # rows of features that are made at a time
NAMES = {"classes": CLASSES, "attributes": ATTRIBUTES}


def network(architecture: str) -> ModelParams:
    """A network with random weights."""
    return ModelParams(
        architecture=architecture, weights="none", classifier=None, classes=None, normalization="auto"
    )


def masking(precision: Precision) -> SaliencyParams:
    """SALIENCY in another precision."""
    return SALIENCY.model_copy(update={"precision": precision})


def caching(precision: Precision, draws: int) -> FeaturesParams:
    """FEATURES in another precision, with R = `draws`."""
    return FEATURES.model_copy(update={"precision": precision, "draws": draws})


def training(precision: Precision) -> TrainParams:
    """TRAIN in another precision."""
    return TRAIN.model_copy(update={"precision": precision})


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mac-benchmark-") as name:
        yield Path(name)


def labels(rows: int, held_out: tuple[int, int]) -> NDArray[np.int64]:
    """Classes of all rows, training first: 23 % of them are 1, as in Waterbirds."""
    return (np.arange(rows + sum(held_out)) * 23 % 100 < 23).astype(np.int64)


def write_images(project: Project, rows: int, held_out: tuple[int, int] = (4, 4), stored: int = 256) -> None:
    """Write images.h5 of noise.

    Args:
        rows: number of training images.
        held_out: number of validation and of test images.
        stored: side of the stored images, pixels.
    """
    total = rows + sum(held_out)
    params = {"name": "noise", "options": {}, "stored_size": stored, "to_stored": "squash"}
    rng = np.random.default_rng(0)
    with store.create(
        project.path("images"), "images", images_schema.SCHEMA, params, {}, **NAMES
    ) as artefact:
        artefact.write("label", labels(rows, held_out))
        artefact.write("attribute", np.arange(total) // 2 % 2)
        artefact.write("split", np.repeat(np.array([0, 1, 2], np.int8), (rows, *held_out)))
        artefact.write("path", [f"{row}.jpg" for row in range(total)])
        image = artefact.create("image", (total, stored, stored, 3))
        for start in range(0, total, 512):
            stop = min(start + 512, total)
            image[start:stop] = rng.integers(0, 256, (stop - start, stored, stored, 3), np.uint8)


def spec(architecture: str, stored: int = 256, size: int = SIZE) -> ModelSpec:
    """How a classifier of the noise is built: sides of the stored images and of its input, in pixels."""
    return ModelSpec(
        architecture=architecture,
        classes=CLASSES,
        attributes=ATTRIBUTES,
        stored_size=stored,
        to_stored="squash",
        input_size=size,
        to_input=INPUTS.to_input,
        normalization=IMAGENET,
    )


def write_erm(project: Project, architecture: str, size: int = SIZE, seed: int = 0) -> None:
    """Write erm/ with random weights, made from images.h5.

    Its batch normalisation has seen noise once, so that its maps are neither zero nor huge.

    Args:
        size: side of the network's input, pixels.
    """
    with project.open("images") as given:
        stored, made_from = given.file("images")["image"].shape[1], given.digests("images")
        names = {"classes": given.groups.classes, "attributes": given.groups.attributes}
    model = classifier.build(architecture, len(CLASSES), seed=seed)
    with torch.no_grad():
        model.train()(torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(seed)))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    made = {
        "model": network(architecture).model_dump(),
        "train": TRAIN.model_dump(),
        "input": {"input_size": size, "to_input": INPUTS.to_input},
        "selection": SELECTION.model_dump(),
    }
    with store.create_folder(project.path("erm")) as out:
        its = replace(spec(architecture, stored, size), **names)
        store.write_model(out, "erm", tensors, its, made, made_from)


def write_head(project: Project, width: int) -> None:
    """Write an erm/ that has a head of `width` features and no trunk: retraining reads nothing else of it."""
    weight = np.random.default_rng(1).standard_normal((2, width), np.float32) / 50
    made = {"train": TRAIN.model_dump(), "selection": SELECTION.model_dump()}
    tensors: dict[str, NDArray[Any]] = {"head.weight": weight, "head.bias": np.zeros(2, np.float32)}
    with store.create_folder(project.path("erm")) as out:
        store.write_model(out, "erm", tensors, spec("resnet50"), made, {})


def make_maps(project: Project, precision: Precision, context: Context) -> None:
    """Run stage saliency."""
    with project.open("images", "erm") as given:
        saliency(given, project.path("maps"), RETRAINING_SET, masking(precision), context)


def make_masks(project: Project, context: Context, params: MasksParams = MASKS) -> None:
    """Run stage masks."""
    with project.open("images", "erm", "maps") as given:
        masks(given, project.path("masks"), params, context)


def make_originals(project: Project, precision: Precision, context: Context) -> None:
    """Run stage originals."""
    with project.open("images", "erm") as given:
        params = OriginalsParams(precision=precision)
        originals(given, project.path("originals"), RETRAINING_SET, params, context)


def make_features(project: Project, params: FeaturesParams, context: Context) -> None:
    """Run stage features."""
    with project.open("images", "erm", "originals", "masks") as given:
        features(given, project.path("features"), params, context)


def write_maps(project: Project) -> None:
    """Write maps.h5: nothing, for every training image. It is made from images.h5 and erm/."""
    made = {**SALIENCY.model_dump(exclude={"most_constant"}), "retraining_set": RETRAINING_SET.model_dump()}
    with project.open("images", "erm") as given:
        size, made_from = given.model("erm").spec.input_size, given.digests("images", "erm")
        rows = np.flatnonzero(given.file("images")["split"][:] == 0)
        target = given.file("images")["label"][:][rows]
    with store.create(project.path("maps"), "maps", maps_schema.SCHEMA, made, made_from) as artefact:
        artefact.write("row", rows)
        artefact.write("target", target)
        artefact.write("cam", np.zeros((len(rows), size // 32, size // 32), np.float32))
        artefact.write("channel_mean", np.full((len(rows), 3), 0.5, np.float32))


def write_masks(project: Project) -> None:
    """Write masks.h5: a square in every training image. It is made from images.h5, erm/ and maps.h5."""
    with project.open("images", "erm", "maps") as given:
        size, made_from = given.model("erm").spec.input_size, given.digests("images", "erm", "maps")
        maps = given.file("maps")
        made = {**maps.provenance.params, **MASKS.model_dump(exclude={"external"})}
        copied = {name: maps[name][:] for name in maps}
    square = np.zeros((size, size), np.bool_)
    square[size // 4 : size * 3 // 4, size // 4 : size * 3 // 4] = True
    with store.create(project.path("masks"), "masks", masks_schema.SCHEMA, made, made_from) as artefact:
        for name, values in copied.items():
            artefact.write(name, values)
        mask = artefact.create("mask", (len(copied["row"]), size, size))
        for position in range(len(mask)):
            mask[position] = square


def write_originals(project: Project) -> None:
    """Write originals.h5 of zeros, as wide as the head in erm/. It is made from images.h5 and erm/."""
    with project.open("images", "erm") as given:
        width, made_from = given.model("erm").head().weight.shape[-1], given.digests("images", "erm")
        columns = {name: given.file("images")[name][:] for name in ("label", "attribute")}
        rows = {split: given.rows(split) for split in store.SPLITS}
    made = {"precision": FEATURES.precision, "retraining_set": RETRAINING_SET.model_dump()}
    out, schema = project.path("originals"), originals_schema.SCHEMA
    with store.create(out, "originals", schema, made, made_from, **NAMES) as artefact:
        for split, members in rows.items():
            artefact.write(f"{split}/row", members)
            artefact.write(f"{split}/original", np.zeros((len(members), width), np.float32))
            for name, values in columns.items():
                artefact.write(f"{split}/{name}", values[members])


def write_features(
    project: Project,
    rows: int,
    draws: int,
    held_out: tuple[int, int],
    sources: tuple[str, ...] = ("erm",),
    storage: str = "float32",
) -> None:
    """Write features.h5 of noise behind a ReLU, as wide as the head in erm/.

    There are two classes, and a shift between them.

    Args:
        rows: number of training images.
        draws: R.
        held_out: number of validation and of test images.
        sources: the artefacts that it says it was made from; erm must be one of them.
        storage: dtype of the features in the file.
    """
    with project.open(*sources) as given:
        width, made_from = given.model("erm").head().weight.shape[-1], given.digests(*sources)
    rng = np.random.default_rng(0)
    shift = rng.standard_normal(width, np.float32) / 4

    def phi(label: NDArray[np.int64]) -> NDArray[np.float32]:
        noise = rng.standard_normal((len(label), width), np.float32)
        return np.maximum(noise + label[:, None] * shift, 0).astype(np.float32)

    label = labels(rows, held_out)
    rows_of = np.split(np.arange(len(label)), np.cumsum((rows, held_out[0])))
    drawn = [pairing.draw(label[:rows], FEATURES.batch_size, FEATURES.seed, r) for r in range(draws)]
    batch = np.stack([draw.batch for draw in drawn])
    order = pairing.by_batch(batch)
    params = FEATURES.model_copy(update={"draws": draws, "storage": storage}).model_dump()
    out = project.path("features")
    with store.create(out, "features", features_schema.SCHEMA, params, made_from, **NAMES) as artefact:
        artefact.write("train/partner", np.stack([draw.partner for draw in drawn]))
        artefact.write("train/batch", batch)
        artefact.write("train/order", order)
        artefact.write("train/fill", np.full((draws, rows, 3), 0.5, np.float32))
        for split, members in zip(store.SPLITS, rows_of, strict=True):
            artefact.write(f"{split}/row", members)
            artefact.write(f"{split}/label", label[members])
            artefact.write(f"{split}/attribute", members // 2 % 2)
            original = artefact.create(f"{split}/original", (len(members), width), storage)
            for some in blocks(len(members), BLOCK):
                original[some.slice] = phi(label[members[some.slice]]).astype(storage)
        for view in ("masked", "combined"):
            dataset = artefact.create(f"train/{view}", (draws, rows, width), storage)
            for r, some in product(range(draws), blocks(rows, BLOCK)):
                dataset[r, some.slice] = phi(label[order[r, some.slice]]).astype(storage)
