"""Artefacts to measure on: random pixels in the layout of a real project, or those of a real one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from pipeline import backbone, store
from pipeline.inputs import IMAGENET_MEAN, IMAGENET_STD
from pipeline.params import FeaturesParams, SaliencyParams, TrainParams

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


def settle(precision: str, draws: int = 4) -> tuple[SaliencyParams, FeaturesParams, TrainParams]:
    """The parameters of the bulk stages, in one precision."""
    same = {"precision": precision}
    return SALIENCY.model_copy(update=same), FEATURES.model_copy(update={**same, "draws": draws}), TRAIN.model_copy(update=same)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mac-benchmark-") as name:
        yield Path(name)


def write_images(path: Path, rows: int, held_out: int = 4, stored: int = 256, size: int = 224, classes: int = 2) -> None:
    """images.h5 with `rows` training images of noise, and `held_out` validation and as many test images."""
    total = rows + 2 * held_out
    params = {"name": "noise", "stored_size": stored, "input_size": size, "to_stored": "squash", "to_input": "center_crop", "options": {}}
    rng = np.random.default_rng(0)
    names = {"classes": [f"class{c}" for c in range(classes)], "attributes": ["a", "b"]}
    with store.create(path, "images", params, {}, **names) as artefact:
        artefact.write("label", np.arange(total) % classes)
        artefact.write("attribute", np.arange(total) // classes % 2)
        artefact.write("split", np.repeat(np.array([0, 1, 2], np.int8), (rows, held_out, held_out)))
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
            "stored_size": params["stored_size"], "input_size": params["input_size"], "to_input": params["to_input"],
            "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
        }  # fmt: skip
        made_from = {"images": images.digest}
    size = params["input_size"]
    with torch.no_grad():
        model.train()(torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(seed)))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with store.create_folder(path) as made:
        store.write_model(made, "erm", tensors, spec, {}, made_from)
