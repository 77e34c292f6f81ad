"""Maps that do not look at the network: noise, and those of given masks."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.store import ModelFolder


def resolution_of(erm: ModelFolder) -> tuple[int, int]:
    """`resolution` of the network in a model folder."""
    model = classifier.load(erm.spec, erm.read(), torch.device("cpu"))
    return resolution(model, erm.spec.input_size)


def resolution(model: Classifier, size: int) -> tuple[int, int]:
    """Height and width of the last maps, seen from one black image of `size`² pixels."""
    black = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=model.head.weight.device)
    height, width = model.trunk.grid(model.encode(model.input(black))).shape[-2:]
    return height, width


def noise(rows: NDArray[np.int64], resolution: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """The control: maps (B, h, w) of noise. They depend only on the seed and the rows (B,) of images.h5."""
    drawn = [np.random.default_rng([seed, row]).random(resolution, dtype=np.float32) for row in rows]
    return np.stack(drawn)


def shares(masks: Tensor, resolution: tuple[int, int]) -> Tensor:
    """The share of each cell that masks (B, S, S) bool cover, (B, h, w) float32: the maps of given masks."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), resolution)[:, 0]
