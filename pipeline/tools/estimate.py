"""What the stages will need, before anything runs: bytes on disk and time, from the parameters and a second's trial of this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.compute import device
from pipeline.datasets.record import Dataset
from pipeline.network import backbone
from pipeline.network.backbone import Classifier
from pipeline.network.inputs import normalize, random_resized_crop_and_flip
from pipeline.params import Params
from pipeline.prepare import decode

TRIED = 16  # images that are decoded
MASK = 0.15  # bytes that gzip leaves of a mask's 8 pixels: seen on Waterbirds and the demo
TRIAL = 1.0  # seconds, at least


@dataclass(frozen=True)
class Need:
    """What a stage will write, in bytes, and how long it will take, in seconds."""

    stage: str
    bytes: float
    seconds: float


def needs(params: Params, dataset: Dataset, cores: int, on: torch.device) -> list[Need]:
    """The stages that take long or write much, in order.

    Raises:
        MacError: unknown architecture, or an image that cannot be read.
    """
    model = backbone.build(params.model.architecture, len(dataset.groups.classes)).to(on)
    width = model.head.in_features
    weights = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    size, stored = params.dataset.input_size, params.dataset.stored_size
    split = np.array([record.split for record in dataset.records])
    count, training = len(split), int((split == 0).sum())
    validation = int((split == 1).sum())
    forward, step = forward_rate(model, size, on), training_rate(params, len(dataset.groups.classes), on)
    views = training * (1 + 2 * params.features.draws) + count - training
    return [
        Need("prepare", count * stored**2 * 3, count / (cores * decoding(dataset, params))),
        Need("train", 2 * weights, params.train.epochs * (training / step + validation / forward)),
        Need("saliency", training * (size**2 / 8 * MASK + 4 * 49), training / forward),
        Need("features", 4 * width * views, views / forward),
        Need("retrain", weights, 4 * width * views / 2e9 * params.retrain.seeds * params.retrain.average / 5 + 3),
    ]


def forward_rate(model: Classifier, size: int, on: torch.device) -> float:
    """Images a second of a forward pass."""
    model = backbone.for_inference(model.eval().requires_grad_(False), torch.float32)
    x = normalize(torch.zeros(device.forward_batch(on), 3, size, size, dtype=torch.uint8).to(on))
    with torch.no_grad():
        return len(x) / _seconds(lambda: model.features(x).cpu())


def training_rate(params: Params, classes: int, on: torch.device) -> float:
    """Images a second of a training step, augmentation included."""
    model = backbone.build(params.model.architecture, classes).to(on).train()
    size, stored_size, train = params.dataset.input_size, params.dataset.stored_size, params.train
    stored = torch.zeros(train.batch_size, stored_size, stored_size, 3, dtype=torch.uint8).to(on)
    label, generator = torch.zeros(train.batch_size, dtype=torch.int64).to(on), torch.Generator().manual_seed(0)

    def step() -> None:
        x = normalize(random_resized_crop_and_flip(stored, size, train.crop_scale, train.flip, generator))
        with device.autocast(on, train.precision):
            logits = model(x)
        F.cross_entropy(logits.float(), label).backward()
        next(model.parameters()).grad.cpu()  # type: ignore[union-attr]

    return train.batch_size / _seconds(step)


def _seconds(function: Callable[[], object]) -> float:
    """Of one call, after one to warm up; calls go on for TRIAL seconds."""
    function()
    start, done = time.monotonic(), 0
    while (spent := time.monotonic() - start) < TRIAL or not done:
        function()
        done += 1
    return spent / done


def decoding(dataset: Dataset, params: Params) -> float:
    """Images that a core decodes a second, from a few spread over the dataset."""
    chosen = np.unique(np.linspace(0, len(dataset.records) - 1, TRIED).astype(int))
    start = time.monotonic()
    for number in chosen:
        decode(dataset.records[number], dataset.root, params.dataset.stored_size, params.dataset.to_stored)
    return len(chosen) / max(time.monotonic() - start, 1e-9)
