"""Artefacts to measure on: random pixels in the layout of a real project, or those of a real one."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.method import pairing
from pipeline.network import backbone
from pipeline.network.inputs import IMAGENET_MEAN, IMAGENET_STD
from pipeline.params import FeaturesParams, RetrainParams, SaliencyParams, TrainParams

SALIENCY = SaliencyParams.model_validate(
    {
        "method": "xgradcam",
        "balance": "none",
        "target": "label",
        "layer": "last",
        "top_k": 0.3,
        "precision": "float32",
        "seed": 0,
        "previews": 0,
    }
)
FEATURES = FeaturesParams.model_validate({"draws": 4, "batch_size": 32, "precision": "float32", "seed": 0})
TRAIN = TrainParams.model_validate(
    {
        "epochs": 1, "batch_size": 32, "lr": 0.001, "momentum": 0.9, "weight_decay": 0.001, "schedule": "constant",
        "crop_scale": [0.7, 1.0], "flip": True, "precision": "float32", "select": "last", "hold_out": 0.0, "seed": 0,
    }
)  # fmt: skip
RETRAIN = RetrainParams.model_validate(
    {
        "solver": "adam", "alpha": 2, "beta": 3, "seeds": 1, "average": 1, "init": "erm", "standardize": False,
        "class_weights": "none", "l2": 0, "epochs": 10, "lr": 0.005, "lr_step": 5, "lr_gamma": 0.5,
    }
)  # fmt: skip
GRID = list(product((0.0, 1.0, 2.0), (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)))  # (α, β), the paper's
SEEDS = 5
NAMES = {"classes": ["class0", "class1"], "attributes": ["a", "b"]}


def settle(precision: str, draws: int = 4) -> tuple[SaliencyParams, FeaturesParams, TrainParams]:
    """The parameters of the bulk stages, in one precision."""
    same = {"precision": precision}
    return SALIENCY.model_copy(update=same), FEATURES.model_copy(update={**same, "draws": draws}), TRAIN.model_copy(update=same)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mac-benchmark-") as name:
        yield Path(name)


def labels(rows: int, held_out: tuple[int, int]) -> NDArray[np.int64]:
    """Classes of all rows, training first: 23 % of them 1, as in Waterbirds."""
    return (np.arange(rows + sum(held_out)) * 23 % 100 < 23).astype(np.int64)


def write_images(path: Path, rows: int, held_out: tuple[int, int] = (4, 4), stored: int = 256, size: int = 224) -> None:
    """images.h5 with `rows` training images of noise, and `held_out` validation and test images."""
    total = rows + sum(held_out)
    params = {"name": "noise", "stored_size": stored, "input_size": size, "to_stored": "squash", "to_input": "center_crop", "options": {}}
    rng = np.random.default_rng(0)
    with store.create(path, "images", params, {}, **NAMES) as artefact:
        artefact.write("label", labels(rows, held_out))
        artefact.write("attribute", np.arange(total) // 2 % 2)
        artefact.write("split", np.repeat(np.array([0, 1, 2], np.int8), (rows, *held_out)))
        artefact.write("path", [f"{row}.jpg" for row in range(total)])
        image = artefact.create("image", (total, stored, stored, 3))
        for start in range(0, total, 512):
            stop = min(start + 512, total)
            image[start:stop] = rng.integers(0, 256, (stop - start, stored, stored, 3), np.uint8)
        artefact.write("channel_mean", np.full((total, 3), 0.5, np.float32))


def write_erm(path: Path, images_path: Path, architecture: str, seed: int = 0) -> None:
    """A model folder with fresh weights; its batch normalisation has seen the first images."""
    with store.open_artefact(images_path, "images") as images:
        params = images.provenance.params
        model = backbone.build(architecture, len(images.attribute("classes")), seed=seed)
        spec = {
            "architecture": architecture, "classes": images.attribute("classes"), "attributes": images.attribute("attributes"),
            "stored_size": params["stored_size"], "to_stored": params["to_stored"],
            "input_size": params["input_size"], "to_input": params["to_input"],
            "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
        }  # fmt: skip
        made_from = {"images": images.digest}
    size = params["input_size"]
    with torch.no_grad():
        model.train()(torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(seed)))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with store.create_folder(path) as made:
        store.write_model(made, "erm", tensors, spec, {"model": {"architecture": architecture}, "train": TRAIN.model_dump()}, made_from)


def write_masks(path: Path, images_path: Path, erm_path: Path) -> None:
    """masks.h5 of a square in every training image."""
    erm = store.open_model(erm_path, "erm")
    size = erm.spec["input_size"]
    square = np.zeros((size, size), np.bool_)
    square[size // 4 : size * 3 // 4, size // 4 : size * 3 // 4] = True
    with store.open_artefact(images_path, "images") as images:
        rows = np.flatnonzero(images["split"][:] == 0)
        with store.create(path, "masks", SALIENCY.model_dump(), {"images": images.digest, "erm": erm.digest}) as artefact:
            artefact.write("row", rows)
            artefact.write("target", images["label"][:][rows])
            artefact.write("cam", np.zeros((len(rows), size // 32, size // 32), np.float32))
            mask = artefact.create("mask", (len(rows), size, size))
            for sample in range(len(rows)):
                mask[sample] = square


def write_features(
    path: Path, erm_path: Path, rows: int, draws: int, held_out: tuple[int, int], made_from: Mapping[str, str] | None = None
) -> None:
    """features.h5 of noise behind a ReLU, of two classes with a shift between them; as wide as the head in `erm_path`."""
    rng = np.random.default_rng(0)
    erm = store.open_model(erm_path, "erm")
    width = erm.head()[0].shape[1]
    shift = rng.standard_normal(width, np.float32) / 4

    def phi(label: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.maximum(rng.standard_normal((len(label), width), np.float32) + label[:, None] * shift, 0).astype(np.float32)

    label = labels(rows, held_out)
    splits = np.split(np.arange(len(label)), np.cumsum((rows, held_out[0])))
    plan = [pairing.draw(label[:rows], FEATURES.batch_size, FEATURES.seed, r) for r in range(draws)]
    sources = {"images": "", "masks": "", **(made_from or {}), "erm": erm.digest}
    with store.create(path, "features", FEATURES.model_dump(), sources, **NAMES) as artefact:
        artefact.write("train/partner", np.stack([draw.partner for draw in plan]))
        artefact.write("train/batch", np.stack([draw.batch for draw in plan]))
        artefact.write("train/fill", np.full((draws, rows, 3), 0.5, np.float32))
        for split, members in zip(store.SPLITS, splits, strict=True):
            artefact.write(f"{split}/row", members)
            artefact.write(f"{split}/label", label[members])
            artefact.write(f"{split}/attribute", members // 2 % 2)
            artefact.write(f"{split}/original", phi(label[members]))
        for view in ("masked", "combined"):
            artefact.write(f"train/{view}", np.stack([phi(label[:rows]) for _ in range(draws)]))


def write_head(path: Path, width: int) -> None:
    """A model folder that has a head of `width` features and nothing else: all that retraining reads of it."""
    weight = np.random.default_rng(1).standard_normal((2, width), np.float32) / 50
    with store.create_folder(path) as made:
        store.write_model(made, "erm", {"head.weight": weight, "head.bias": np.zeros(2, np.float32)}, {}, {}, {})
