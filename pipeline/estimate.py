"""What the stages will need, before anything runs: bytes on disk and time, from the parameters and a second's trial of this machine."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from pipeline import backbone, device
from pipeline.backbone import Classifier
from pipeline.datasets.record import Dataset
from pipeline.inputs import normalize
from pipeline.params import Params
from pipeline.prepare import decode

TRIED = 16  # images that are decoded
MASK = 0.15  # bytes that gzip leaves of a mask's 8 pixels: seen on Waterbirds and the demo
TRAINING = 3.0  # a training step, in times of a forward pass


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
    forward = rate(model, size, on)
    views = training * (1 + 2 * params.features.draws) + count - training
    return [
        Need("prepare", count * stored**2 * 3, count / (cores * decoding(dataset, params))),
        Need("train", 2 * weights, params.train.epochs * training * TRAINING / forward),
        Need("saliency", training * (size**2 / 8 * MASK + 4 * 49), training / forward),
        Need("features", 4 * width * views, views / forward),
        Need("retrain", weights, 4 * width * views / 2e9 * params.retrain.seeds * params.retrain.average / 5 + 3),
    ]


def rate(model: Classifier, size: int, on: torch.device, least: float = 1.0) -> float:
    """Images a second of a forward pass, over at least `least` seconds."""
    model = backbone.for_inference(model.eval().requires_grad_(False), torch.float32)
    x = normalize(torch.zeros(device.forward_batch(on), 3, size, size, dtype=torch.uint8).to(on))
    with torch.no_grad():
        model.features(x)  # warm-up
        start, done, spent = time.monotonic(), 0, 0.0
        while spent < least:
            model.features(x).cpu()
            done, spent = done + len(x), time.monotonic() - start
    return done / spent


def decoding(dataset: Dataset, params: Params) -> float:
    """Images that a core decodes a second, from a few spread over the dataset."""
    chosen = np.unique(np.linspace(0, len(dataset.records) - 1, TRIED).astype(int))
    start = time.monotonic()
    for number in chosen:
        decode(dataset.records[number], dataset.root, params.dataset.stored_size, params.dataset.to_stored)
    return len(chosen) / max(time.monotonic() - start, 1e-9)
