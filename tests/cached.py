"""A project of random features, made by no stage: for tests of the last layer. It is there at once.

Images have one pixel, and the model has no trunk. One feature goes by the class, another, stronger one by the
spurious attribute; in 80 % of the rows the two agree.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import graph, store
from pipeline.compute.context import Context
from pipeline.last_layer.table import Resident
from pipeline.last_layer.views import Views
from pipeline.method.pairing import by_batch
from pipeline.metrics import UNKNOWN
from pipeline.params.cores import CoreParams
from pipeline.params.features import FeaturesParams
from pipeline.params.fit import FitParams
from pipeline.params.maps import MapParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Project
from pipeline.schemas import features, images, maps, masks
from pipeline.schemas import originals as originals_schema
from pipeline.spec import IMAGENET, ModelSpec
from pipeline.store import SPLITS

WIDTH, DRAWS, BATCH = 12, 2, 8
COUNTS = {"train": 60, "val": 80, "test": 90}
CLASSES, ATTRIBUTES = ("landbird", "waterbird"), ("land", "water")
GROUPS = ("landbird_land", "landbird_water", "waterbird_land", "waterbird_water")
NAMES = {"classes": CLASSES, "attributes": ATTRIBUTES}
SPEC = ModelSpec("none", CLASSES, ATTRIBUTES, 1, "squash", 1, "resize", IMAGENET)
FIT = FitParams(
    solver="adam",
    seeds=2,
    average=1,
    memory="auto",
    init="erm",
    standardize=False,
    class_weights="none",
    l2=0.0,
    epochs=3,
    lr=0.01,
    lr_step=2,
    lr_gamma=0.5,
)

AUTO = SelectionParams(criterion="auto")
MAPS = MapParams(
    method="xgradcam",
    target="label",
    layer="last",
    flip=False,
    precision="float32",
    seed=0,
)
FEATURES = FeaturesParams(
    draws=2, validation_draws=1, batch_size=8, low_loss=1.0, precision="float32", storage="float32", seed=0
)
CORES = CoreParams(size="top_k", top_k=0.3, side="core")

Array = NDArray[Any]
Splits = dict[str, tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]


def fit_params(**changes: Any) -> FitParams:
    """FIT, but for what is changed."""
    return FIT.model_validate(FIT.model_dump() | changes)


def rows(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Features (count, WIDTH), labels and attributes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    attribute = np.where(rng.random(count) < 0.8, label, 1 - label)
    x = rng.normal(size=(count, WIDTH)).astype(np.float32) * np.linspace(0.5, 3, WIDTH, dtype=np.float32)
    x[:, 0] += 1.5 * label
    x[:, 1] += 4 * attribute
    return x, label, attribute


def retraining_set(
    original: NDArray[np.float32], label: NDArray[np.int64], batch: NDArray[np.integer], *others: Array
) -> Views:
    """Features (M, D) in memory, and those of masked and combined views (R, M, D) if they are given."""
    order = by_batch(batch)
    in_order = [np.take_along_axis(each, order[..., None], 1).reshape(-1, each.shape[-1]) for each in others]
    return Views(
        Resident(torch.from_numpy(np.concatenate([original, *in_order]))),
        label=torch.from_numpy(label),
        order=torch.from_numpy(order).long(),
        sizes=torch.from_numpy(np.bincount(batch[0])),
        weight=torch.ones(len(label)),
        intervention_weight=torch.ones(len(label)),
    )


def originals(views: Views) -> Tensor:
    """(M, D)."""
    return views.take(torch.arange(len(views.label)))


def interventions(views: Views) -> Tensor:
    """(2, R, M, D): the masked views, then the combined views, by row."""
    assert isinstance(views.table, Resident)
    of_places = views.table.values[len(views.label) :].view(2, *views.order.shape, -1)
    return torch.empty_like(of_places).scatter_(
        2, views.order[None, ..., None].expand_as(of_places), of_places
    )


def batches(views: Views) -> Tensor:
    """(R, M), the batch of each row in each draw."""
    numbers = torch.arange(len(views.sizes)).repeat_interleave(views.sizes)
    return torch.empty_like(views.order).scatter_(1, views.order, numbers.expand_as(views.order))


def context(data: Path) -> Context:
    """This process's CPU, and a scratch folder in the data folder."""
    return Context("cpu", data / "scratch")


def write(data: Path, unknown: Sequence[str] = (), kept: Sequence[int] = (), **train: Any) -> Project:
    """Write images.h5, erm/, maps.h5, masks.h5, originals.h5 and features.h5 into the folder `data`.

    Args:
        unknown: the splits whose attributes are unknown.
        kept: the early epochs of ERM whose logits are kept, as `early` has them.
        train: changes of what erm/ says it was trained with: `select`, `hold_out`, `seed`. Groups choose.
    """
    project = graph.project(data)
    splits = {split: rows(count, seed) for seed, (split, count) in enumerate(COUNTS.items())}
    for split in unknown:
        x, label, attribute = splits[split]
        splits[split] = x, label, np.full_like(attribute, UNKNOWN)
    head = np.random.default_rng(9).normal(size=(2, WIDTH)).astype(np.float32) / 4
    rng, views = np.random.default_rng(8), {}
    for view in ("masked", "combined"):
        noise = rng.normal(size=(DRAWS, COUNTS["train"], WIDTH)).astype(np.float32)
        views[view] = splits["train"][0] + noise
    _write_all(project, splits, head, views, rng, kept=kept, **train)
    return project


def early(kept: Sequence[int], count: int) -> dict[str, Array]:
    """What early.safetensors has, of random logits of `count` training images. ERM's own epoch is 6."""
    logits = 3 * np.random.default_rng(7).normal(size=(len(kept), count, 2)).astype(np.float32)
    return {"epoch": np.array(kept), "logits": logits, "erm": np.array(6)}


def write_signed(data: Path, *, erm: int, original: int, masked: int, combined: int) -> Project:
    """The same files, of features that are the class's sign and a little noise.

    Args:
        erm, original, masked, combined: 1 if ERM's head, or the views of the training images, agree with the
            held-out splits; −1 if they contradict them.
    """
    project, rng = graph.project(data), np.random.default_rng(0)

    def features_of(label: NDArray[np.int64], sign: int, *shape: int) -> NDArray[np.float32]:
        x = 0.1 * rng.normal(size=(*shape, len(label), WIDTH))
        x[..., 0] += sign * (2 * label - 1)
        return x.astype(np.float32)

    splits = {}
    for split, count in COUNTS.items():
        label, attribute = np.arange(count) % 2, np.arange(count) // 2 % 2
        splits[split] = features_of(label, original if split == "train" else 1), label, attribute
    label = splits["train"][1]
    views = {"masked": features_of(label, masked, DRAWS), "combined": features_of(label, combined, DRAWS)}
    head = np.zeros((2, WIDTH), np.float32)
    head[:, 0] = -erm, erm
    _write_all(project, splits, head, views, rng)
    return project


def write_of_noise(data: Path, *, core: int, swayed: int = 0) -> Project:
    """The same files. ERM goes by the attribute, which in the held-out splits is the class of 90 %.

    All views of the training images are noise, so what is retrained on them flips a coin.

    Args:
        core: the feature that is the core of validation images: ERM goes by 0, and does not see 1.
        swayed: on how many backgrounds of another class ERM takes the core for the other class.
    """
    project, rng = graph.project(data), np.random.default_rng(0)
    splits = {}
    for split, count in COUNTS.items():
        label, minority = np.arange(count) % 2, np.arange(count) // 2 % 10 == 0
        attribute = np.where(minority, 1 - label, label)
        x = rng.normal(size=(count, WIDTH)).astype(np.float32)
        x[:, 0] = 0 if split == "train" else 2 * attribute - 1
        splits[split] = x, label, attribute
    shape = (DRAWS, COUNTS["train"], WIDTH)
    views = {name: rng.normal(size=shape).astype(np.float32) for name in ("masked", "combined")}
    head = np.zeros((2, WIDTH), np.float32)
    head[:, 0] = -1, 1
    _write_all(project, splits, head, views, rng, core, swayed)
    return project


def _write_all(
    project: Project,
    splits: Splits,
    head: Array,
    views: dict[str, Array],
    rng: np.random.Generator,
    core: int = 0,
    swayed: int = 0,
    kept: Sequence[int] = (),
    **train: Any,
) -> None:
    _write_images(project, splits)
    made = {"select": "last", "hold_out": 0.0, "seed": 0, "weight_decay": 0.001}
    _write_erm(project, head, made | train, kept)
    _write_masks(project)
    _write_features(project, splits, views, rng, core, swayed)


def _write_images(project: Project, splits: Splits) -> None:
    total = sum(COUNTS.values())
    with store.create(project.path("images"), "images", images.SCHEMA, {}, {}, **NAMES) as file:
        file.write("image", np.zeros((total, 1, 1, 3), np.uint8))
        file.write("label", np.concatenate([label for _, label, _ in splits.values()]))
        file.write("attribute", np.concatenate([attribute for _, _, attribute in splits.values()]))
        file.write("split", np.repeat(np.arange(3), list(COUNTS.values())).astype(np.int8))
        file.write("path", [f"{row}.png" for row in range(total)])


def _write_erm(project: Project, head: Array, train: dict[str, Any], kept: Sequence[int]) -> None:
    tensors = {
        "trunk.some": np.ones(3, np.float32),
        "head.weight": head,
        "head.bias": np.zeros(2, np.float32),
    }
    made = {"train": train, "selection": {"criterion": "groups"}}
    with project.open("images") as given, store.create_folder(project.path("erm")) as folder:
        others = {"early": early(kept, COUNTS["train"])} if kept else {}
        store.write_model(folder, "erm", tensors, SPEC, made, given.digests("images"), **others)


def _write_masks(project: Project) -> None:
    with project.open("images", "erm") as given:
        made_from = given.digests("images", "erm")
        label, split = (given.file("images")[name][:] for name in ("label", "split"))
    looked, cores = {}, {}
    for part, number in (("", 0), ("val/", 1)):
        rows = np.flatnonzero(split == number)
        looked |= {f"{part}row": rows, f"{part}target": label[rows]}
        looked[f"{part}cam"] = np.tile(np.array([0, 1], np.float32), (len(rows), 1, 1))
        looked[f"{part}channel_mean"] = np.zeros((len(rows), 3), np.float32)
        cores[f"{part}mask"] = np.ones((len(rows), 1, 1), np.bool_)
    made = {"method": "xgradcam", "precision": "float32"}
    with store.create(project.path("maps"), "maps", maps.SCHEMA, made, made_from) as file:
        for name, values in looked.items():
            file.write(name, values)
    with project.open("images", "erm", "maps") as given:
        made_from = given.digests("images", "erm", "maps")
    made = {"method": "xgradcam", "side": "core"}
    with store.create(project.path("masks"), "masks", masks.SCHEMA, made, made_from) as file:
        for name, values in {**looked, **cores}.items():
            file.write(name, values)


def _write_features(
    project: Project,
    splits: Splits,
    views: dict[str, Array],
    rng: np.random.Generator,
    core: int,
    swayed: int,
) -> None:
    first, copied = 0, {}
    for split in SPLITS:
        x, label, attribute = splits[split]
        copied |= {f"{split}/original": x, f"{split}/label": label, f"{split}/attribute": attribute}
        copied[f"{split}/row"] = np.arange(first, first + len(label))
        first += len(label)
    with project.open("images", "erm") as given:
        made_from = given.digests("images", "erm")
    made, out = {"precision": "float32"}, project.path("originals")
    with store.create(out, "originals", originals_schema.SCHEMA, made, made_from, **NAMES) as file:
        for name, values in copied.items():
            file.write(name, values)
    with project.open("images", "erm", "originals", "masks") as given:
        made_from = given.digests("images", "erm", "originals", "masks")
    with store.create(project.path("features"), "features", features.SCHEMA, {}, made_from, **NAMES) as file:
        for name, values in copied.items():
            file.write(name, values)
        count = COUNTS["train"]
        batch = np.stack([rng.permutation(count) // BATCH for _ in range(DRAWS)])
        order = by_batch(batch)
        for view, x in views.items():
            file.write(f"train/{view}", np.take_along_axis(x, order[..., None], 1))
        file.write("train/order", order)
        file.write("train/partner", np.zeros((DRAWS, count), np.int32))
        file.write("train/batch", batch.astype(np.int32))
        file.write("train/fill", np.zeros((DRAWS, count, 3), np.float32))
        _write_views_of_validation(file, splits, core, swayed)


def _write_views_of_validation(file: store.Writer, splits: Splits, feature: int, swayed: int) -> None:
    """The core is one feature; the rest is all others. Partners are training images."""
    (x, own, _), (train, theirs, _) = splits["val"], splits["train"]
    is_core = np.arange(WIDTH) == feature
    core, backgrounds = x * is_core, train * ~is_core
    partner = np.array([np.flatnonzero(theirs != each)[0] for each in own])
    same = np.array([np.flatnonzero(theirs == each)[-1] for each in own])
    file.write("val/position", np.arange(len(x)))
    file.write("val/masked", core[None])
    file.write("val/rest", (x - core)[None])
    combined = core + backgrounds[partner]
    combined[:swayed] *= -1
    file.write("val/combined", combined[None])
    file.write("val/combined_same", (core + backgrounds[same])[None])
    file.write("val/train_partner", partner[None].astype(np.int32))
    file.write("val/train_partner_same", same[None].astype(np.int32))
    file.write("val/batch", np.zeros((1, len(x)), np.int32))
    file.write("val/fill", np.zeros((1, len(x), 3), np.float32))
