"""The saliency maps. A map ranks the pixels of an image; the K highest become the mask.

`of_batch` makes them. A new method needs a function from a batch to raw maps, an entry in MAPS, and its name
in `pipeline.params.maps`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from pipeline.compute import device
from pipeline.errors import MacError
from pipeline.method import gradient_maps, package_cams
from pipeline.method.gradient_maps import GradientMap
from pipeline.network.classifier import Classifier
from pipeline.params.maps import MapParams


@dataclass(frozen=True)
class Batch:
    """The inputs of a map.

    Attributes:
        x: (B, 3, S, S), normalised, of the model's dtype.
        label: (B,) int64.
    """

    x: Tensor
    label: Tensor


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


def _package(method: str, model: Classifier, batch: Batch, params: MapParams) -> Maps:
    target = _target(model, batch, params)
    return Maps(package_cams.raw_maps(method, model, batch.x, target, params.layer), target)


MAPS: dict[str, MapMethod] = {
    "auto": partial(_by_gradient, None),
    "xgradcam": partial(_by_gradient, "xgradcam"),
    "hirescam": partial(_by_gradient, "hirescam"),
    "attention": _attention,
    **{name: partial(_package, name) for name in package_cams.CLASSES},
}


def of_batch(model: Classifier, batch: Batch, params: MapParams) -> Maps:
    """The raw maps of a batch.

    With `flip`, the map is the mean of the image's map and of its mirror image's map, mirrored back. Both
    explain the same class.

    Args:
        params: their method looks at the network.
    """
    method = MAPS[params.method]
    found = method(model, batch, params)
    if not params.flip:
        return found
    mirrored = replace(batch, x=batch.x.flip(3), label=found.target)
    other = method(model, mirrored, params.model_copy(update={"target": "label"}))
    return replace(found, cam=mean_of_mirrored(found.cam, other.cam))


def mean_of_mirrored(cam: Tensor, mirrored: Tensor) -> Tensor:
    """The mean of maps and of those of the mirror images, mirrored back; (B, h, w) each."""
    return (cam + mirrored.flip(2)) / 2
