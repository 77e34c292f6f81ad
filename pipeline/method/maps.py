"""The saliency maps. A map ranks the pixels of an image; the K highest become the mask.

`of_batch` makes them. A new method needs a function from a batch to raw maps, an entry in MAPS, and its name
in `pipeline.params.maps`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.compute import device
from pipeline.errors import MacError
from pipeline.method import gradient_maps, package_cams
from pipeline.method.gradient_maps import GradientMap
from pipeline.method.kinds import LOOK_AWAY
from pipeline.network.classifier import Classifier
from pipeline.params.maps import MapParams


@dataclass(frozen=True)
class Batch:
    """The inputs of a map.

    Attributes:
        row: (B,) int64, rows of images.h5.
        x: (B, 3, S, S), normalised, of the model's dtype.
        label: (B,) int64.
        foreground: (B, S, S) bool, the true masks, or those of the user's files; None unless the method is
            `foreground` or `external`.
    """

    row: NDArray[np.int64]
    x: Tensor
    label: Tensor
    foreground: Tensor | None


@dataclass(frozen=True)
class Maps:
    """Raw maps of a batch.

    Attributes:
        cam: (B, h, w) float32, neither rectified nor upsampled.
        target: (B,) int64, the class that each map explains.
    """

    cam: Tensor
    target: Tensor


MapMethod = Callable[[Classifier, Batch, MapParams], Maps]


def looks_inside(params: MapParams) -> bool:
    """Whether the map needs the network's inner layers, which a network made for inference may lack."""
    return params.method in package_cams.CLASSES or params.layer != "last"


def _by_gradient(name: GradientMap | None, model: Classifier, batch: Batch, params: MapParams) -> Maps:
    method = name or gradient_maps.suited(model.trunk)
    if params.layer == "last":
        state = model.encode(batch.x)  # one forward pass gives the prediction and the map
        target = batch.label
        if params.target == "prediction":
            target = model.head(model.trunk.pool(state)).argmax(1)
        return Maps(gradient_maps.of_head(model.trunk, state, model.head.weight, target, method), target)
    with device.autocast(batch.x.device, params.precision):
        target = _target(model, batch, params)
        return Maps(gradient_maps.by_autograd(model, batch.x, target, params.layer, method), target)


def _attention(model: Classifier, batch: Batch, params: MapParams) -> Maps:
    """What the last block attends to, whatever the class is."""
    found = model.trunk.attention(batch.x)
    if found is None:
        raise MacError("saliency.method: attention needs a vision transformer; choose another method")
    return Maps(found, batch.label)


def _target(model: Classifier, batch: Batch, params: MapParams) -> Tensor:
    """(B,) int64, the class to explain. The predicted class needs a forward pass."""
    return batch.label if params.target == "label" else model(batch.x).float().argmax(1)


def _random(model: Classifier, batch: Batch, params: MapParams) -> Maps:
    """Noise at the resolution of the maps. It depends only on the seed and the row."""
    side = _side(model, batch)
    noise = [np.random.default_rng([params.seed, row]).random(side, dtype=np.float32) for row in batch.row]
    return Maps(torch.from_numpy(np.stack(noise)).to(batch.x.device), batch.label)


def _foreground(model: Classifier, batch: Batch, params: MapParams) -> Maps:
    """Given masks, averaged to the resolution of the maps. They are taken as they are, whatever the map."""
    assert batch.foreground is not None
    shares = F.adaptive_avg_pool2d(batch.foreground[:, None].float(), _side(model, batch))
    return Maps(shares[:, 0], batch.label)


def _side(model: Classifier, batch: Batch) -> tuple[int, int]:
    """Height and width of the last maps."""
    height, width = model.trunk.grid(model.encode(batch.x[:1])).shape[-2:]
    return height, width


def _package(method: str, model: Classifier, batch: Batch, params: MapParams) -> Maps:
    target = _target(model, batch, params)
    return Maps(package_cams.raw_maps(method, model, batch.x, target, params.layer), target)


MAPS: dict[str, MapMethod] = {
    "auto": partial(_by_gradient, None),
    "xgradcam": partial(_by_gradient, "xgradcam"),
    "hirescam": partial(_by_gradient, "hirescam"),
    "attention": _attention,
    "random": _random,
    "foreground": _foreground,
    "external": _foreground,
    **{name: partial(_package, name) for name in package_cams.CLASSES},
}


def of_batch(model: Classifier, batch: Batch, params: MapParams) -> Maps:
    """The raw maps of a batch.

    With `flip`, the map is the mean of the image's map and of its mirror image's map, mirrored back. Both
    explain the same class. Maps that do not look at the network are as they are.
    """
    method = MAPS[params.method]
    found = method(model, batch, params)
    if not params.flip or params.method in LOOK_AWAY:
        return found
    mirrored = replace(batch, x=batch.x.flip(3), label=found.target)
    other = method(model, mirrored, params.model_copy(update={"target": "label"}))
    return replace(found, cam=mean_of_mirrored(found.cam, other.cam))


def mean_of_mirrored(cam: Tensor, mirrored: Tensor) -> Tensor:
    """The mean of maps and of those of the mirror images, mirrored back; (B, h, w) each."""
    return (cam + mirrored.flip(2)) / 2
