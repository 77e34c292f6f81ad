"""Estimates what the stages will need, before anything runs: bytes on disk, and time.

The estimate uses the parameters, and trials on this machine of about a second each.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.compute import device
from pipeline.datasets.record import Dataset
from pipeline.method.controls import resolution
from pipeline.method.kinds import AS_GIVEN, LOOK_AWAY
from pipeline.method.knee import QUANTILES
from pipeline.method.masks import top_k_mask, upsample
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import random_resized_crop_and_flip
from pipeline.params.cores import CoreParams
from pipeline.params.dataset import DatasetParams
from pipeline.params.features import FeaturesParams
from pipeline.params.inputs import InputParams
from pipeline.params.maps import MapParams
from pipeline.params.model import ModelParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.sweep import SweepParams
from pipeline.params.train import TrainParams
from pipeline.params_file import Params
from pipeline.steps.prepare import decode
from pipeline.store import SPLITS, encode, require_webp
from pipeline.store.rows import Packing

TRIED = 16  # images that are decoded
ENCODED = 0.46  # bytes for one of pixels, if they are encoded, measured on Waterbirds
MASK = 0.15  # compressed bytes for 8 pixels of a mask, measured on Waterbirds and the demo
ROW = 2 * 8 + 3 * 4  # bytes for an image in maps.h5 besides its map: row, target and channel mean
SHARE = 0.3  # of the pixels that are in the masks of a trial
TRIAL = 1.0  # seconds of a trial, at least
FIT_RATE = 10e9  # bytes of features that the fit of one head reads in a second
FIT_START = 3.0  # seconds that a stage that fits heads takes besides the fits


@dataclass(frozen=True)
class Need:
    """What a stage will need.

    Attributes:
        bytes: of its artefact.
        besides: bytes that also lie on the disk while it runs.
        seconds: how long it will take.
    """

    stage: str
    bytes: float
    seconds: float
    besides: float = 0


def most_on_disk(needs: Sequence[Need]) -> float:
    """The most bytes that lie on the disk at a time, when the stages run in this order."""
    there = accumulate(need.bytes for need in needs)
    return max(total + need.besides for total, need in zip(there, needs, strict=True))


def needs(params: Params, dataset: Dataset, decoding: float, on: torch.device) -> list[Need]:
    """The needs of the stages that take long or write much, in their order.

    Args:
        decoding: images per second that prepare decodes, on all of its cores.
        on: the device of the other stages.

    Raises:
        MacError: unknown architecture.
        RuntimeError: a trial of the network fails, such as for lack of memory.
    """
    images, inputs, train = params.of(DatasetParams), params.of(InputParams), params.of(TrainParams)
    features, sweep, retrain = params.of(FeaturesParams), params.of(SweepParams), params.of(RetrainParams)
    classes = len(dataset.groups.classes)
    network = params.of(ModelParams)
    model = classifier.build(network.architecture, classes, input_size=inputs.input_size).to(on)
    weights = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    split = np.array([record.split for record in dataset.records])
    training, validation, test = np.bincount(split, minlength=len(SPLITS)).tolist()
    # The training step is measured first, because the other measurement changes the model.
    step = training_rate(model, images.stored_size, inputs.input_size, train, on)
    forward = forward_rate(model, inputs.input_size, on)
    side = resolution(model, inputs.input_size)
    masking = masking_rate(side, inputs.input_size, on)
    fitted = training * (1 + 2 * features.draws) + validation + test
    originals = training + validation + test
    views = 2 * features.draws * training + 4 * features.validation_draws * validation
    width, masked = 4 * model.head.in_features, training + validation
    stored = np.dtype(features.storage).itemsize * model.head.in_features
    saliency, cores = params.of(MapParams), params.of(CoreParams)
    # Forward passes for maps, and for masks.
    looked = 0 if saliency.method in LOOK_AWAY else masked * (2 if saliency.flip else 1)
    seen = masked * (len(QUANTILES) if cores.size == "knee" else 0)
    if cores.side == "auto":
        seen += validation * (2 + (len(QUANTILES) if cores.size == "knee" else 0))
    if saliency.method in AS_GIVEN:
        seen = 0
    fits = {
        "sweep": len(sweep.settings(retrain.l2, with_default=True)) * sweep.seeds * sweep.average,
        "retrain": retrain.seeds * retrain.average,
    }
    seconds = {stage: count * width * fitted / FIT_RATE + FIT_START for stage, count in fits.items()}
    kept = len(train.keep_epochs) * training / forward
    trained = Need("train", 2 * weights, train.epochs * (training / step + validation / forward) + kept)
    if network.classifier is not None:
        trained = Need("train", weights, validation / forward)
    mask, looked_at = inputs.input_size**2 / 8 * MASK, ROW
    if saliency.method not in AS_GIVEN:
        looked_at += 4 * side[0] * side[1]
    written = float(len(split) * images.stored_size**2 * 3)
    if is_encoded := images.storage == "encoded":
        written *= ENCODED
    return [
        # Encoded images also lie in the records of their blocks, until the file is whole.
        Need("prepare", written, len(split) / decoding, besides=written if is_encoded else 0),
        trained,
        Need("saliency", masked * looked_at, looked / forward),
        Need("masks", masked * (mask + looked_at), masked / masking + seen / forward),
        Need("originals", width * originals, originals / forward),
        Need("features", stored * (originals + views), views / forward),
        Need("sweep", 0, seconds["sweep"]),
        Need("retrain", weights, seconds["retrain"]),
    ]


def forward_rate(model: Classifier, size: int, on: torch.device) -> float:
    """Images per second in a forward pass.

    Args:
        model: on the device; it is changed for inference.
        size: side of the input grid, pixels.
    """
    model = classifier.for_inference(model.eval().requires_grad_(False), torch.float32)
    x = model.input(torch.zeros(device.forward_batch(on), 3, size, size, dtype=torch.uint8, device=on))
    with torch.no_grad():
        return len(x) / _seconds(lambda: model.features(x).cpu())


def masking_rate(side: tuple[int, int], size: int, on: torch.device) -> float:
    """Masks per second that are made of maps and compressed.

    Args:
        side: height and width of the maps.
        size: side of the input grid, pixels.
    """
    maps = torch.rand(16, *side, generator=torch.Generator().manual_seed(0)).to(on)
    k, packing = max(1, round(SHARE * size**2)), Packing((size, size), np.dtype(np.bool_))
    return len(maps) / _seconds(lambda: packing.write(top_k_mask(upsample(maps, size), k).cpu().numpy()))


def training_rate(
    model: Classifier, stored_size: int, size: int, params: TrainParams, on: torch.device
) -> float:
    """Images per second in a training step, with augmentation.

    Args:
        model: on the device; it gets gradients, but its parameters are not changed.
        stored_size, size: sides of the stored images and of the input grid, pixels.
    """
    model.train()
    stored = torch.zeros(params.batch_size, stored_size, stored_size, 3, dtype=torch.uint8, device=on)
    label = torch.zeros(params.batch_size, dtype=torch.int64, device=on)
    generator = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())

    def step() -> None:
        crops = random_resized_crop_and_flip(stored, size, params.crop_scale, params.flip, generator)
        with device.autocast(on, params.precision):
            logits = model(model.input(crops))
        F.cross_entropy(logits.float(), label).backward()
        assert parameter.grad is not None
        parameter.grad.cpu()  # waits for the device

    return params.batch_size / _seconds(step)


def _seconds(function: Callable[[], object]) -> float:
    """The time of a call in seconds: after a warm-up call, the mean over calls during TRIAL seconds."""
    function()
    start, done = time.monotonic(), 0
    while (spent := time.monotonic() - start) < TRIAL or not done:
        function()
        done += 1
    return spent / done


def decoding_rate(dataset: Dataset, params: DatasetParams) -> float:
    """Images per second that a core decodes, and encodes if they are stored so.

    It is measured on a few images from the whole dataset.

    Raises:
        MacError: one of the images cannot be read, or Pillow cannot encode them.
    """
    if params.storage == "encoded":
        require_webp()
    chosen = np.unique(np.linspace(0, len(dataset.records) - 1, TRIED).astype(int))
    start = time.monotonic()
    for number in chosen:
        image = decode(dataset.records[number], dataset.root, params).image
        if params.storage == "encoded":
            encode(image)
    return len(chosen) / max(time.monotonic() - start, 1e-9)
