"""Stage saliency: the core of every training image (paper section 3.2).

    image -> map (xGradCAM for the target class) -> upsampled to the input grid -> mask of its K highest pixels

A method is a function from a batch to raw maps: one entry in METHODS.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.engine import Arrays, Block, Cluster, Shards, blocks
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.method import package_cams, xgradcam
from pipeline.method.masks import pixel_count, top_k_mask, upsample
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params import SaliencyParams
from pipeline.results import visual

BATCHES = 16  # in a shard; whole batches, so that cutting otherwise would not change what shares a batch


@dataclass(frozen=True)
class Batch:
    """What a method may look at.

    Attributes:
        row: (B,) int64, rows of images.h5.
        x: (B, 3, H, W), normalised, of the model's dtype.
        label: (B,) int64.
        foreground: (B, H, W) bool true masks, only for the `foreground` control.
    """

    row: NDArray[np.int64]
    x: Tensor
    label: Tensor
    foreground: Tensor | None


@dataclass(frozen=True)
class Maps:
    """cam: (B, h, w) float32 raw maps; target: (B,) int64 the class that each explains."""

    cam: Tensor
    target: Tensor


Method = Callable[[backbone.Classifier, Batch, SaliencyParams], Maps]


def _xgradcam(model: backbone.Classifier, batch: Batch, params: SaliencyParams) -> Maps:
    if params.layer == "last":
        activations = model.activations(batch.x)  # one forward pass gives the prediction and the map
        target = _target(model.head(model.pool(activations)), batch, params)
        return Maps(xgradcam.closed_form(activations, model.head.weight, target), target)
    with device.autocast(batch.x.device, params.precision):
        target = batch.label if params.target == "label" else _target(model(batch.x), batch, params)
        return Maps(xgradcam.by_autograd(model, batch.x, target, params.layer), target)


def _target(logits: Tensor, batch: Batch, params: SaliencyParams) -> Tensor:
    return batch.label if params.target == "label" else logits.float().argmax(1)


def _random(model: backbone.Classifier, batch: Batch, params: SaliencyParams) -> Maps:
    """Noise at the maps' own resolution, a pure function of (seed, row): blobs of K pixels that know nothing."""
    side = model.activations(batch.x[:1]).shape[-2:]
    noise = [np.random.default_rng([params.seed, row]).random(side, dtype=np.float32) for row in batch.row]
    return Maps(torch.from_numpy(np.stack(noise)).to(batch.x.device), batch.label)


def _foreground(model: backbone.Classifier, batch: Batch, params: SaliencyParams) -> Maps:
    """The true masks, averaged down to the maps' resolution; the mask itself is taken as it is, whatever its size."""
    assert batch.foreground is not None
    height, width = model.activations(batch.x[:1]).shape[-2:]
    return Maps(F.adaptive_avg_pool2d(batch.foreground[:, None].float(), (height, width))[:, 0], batch.label)


def _package(method: str, model: backbone.Classifier, batch: Batch, params: SaliencyParams) -> Maps:
    target = batch.label if params.target == "label" else _target(model(batch.x), batch, params)
    return Maps(package_cams.raw_maps(method, model, batch.x, target, params.layer), target)


METHODS: dict[str, Method] = {
    "xgradcam": _xgradcam,
    "random": _random,
    "foreground": _foreground,
    **{name: partial(_package, name) for name in package_cams.CLASSES},
}


def saliency(
    images_path: Path,
    erm_path: Path,
    out: Path,
    params: SaliencyParams,
    on: torch.device,
    scratch: Path,
    rows: NDArray[np.int64] | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Write masks.h5: map and mask of every row of the retraining set (the training split, or a class-balanced part of it).

    Args:
        rows: the retraining set, if it is given already.
        cluster: does the work in place of this process.

    Raises:
        MacError: `top_k` beyond the input grid; true masks asked for where the dataset has none.
    """
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        size = erm.spec["input_size"]
        k = pixel_count(params.top_k, size)
        if k > size * size:
            raise MacError(f"saliency.top_k: {k} pixels, but the input grid has only {size}² = {size * size}")
        made_from = {"images": images.digest, "erm": erm.digest}
        rows = _retraining_rows(images, params) if rows is None else rows
        work = _Work(images_path.resolve(), erm_path.resolve(), made_from, params, rows, k, on.type if cluster else str(on))
        cut = blocks(len(rows), BATCHES * device.forward_batch(on))
        fingerprint = (params.model_dump(exclude={"previews"}), made_from, on.type, rows.tolist())
        with Shards(scratch, "saliency", *fingerprint) as shards, store.create(out, "masks", params.model_dump(), made_from) as artefact:
            artefact.write("row", rows)
            targets = np.empty(len(rows), np.int64)
            mask = artefact.create("mask", (len(rows), size, size))

            def merge(block: Block, arrays: Arrays) -> None:
                if block.start == 0:
                    artefact.create("cam", (len(rows), *arrays["cam"].shape[1:]))
                targets[block.slice], artefact.file["cam"][block.slice] = arrays["target"], arrays["cam"]
                mask[block.slice] = np.unpackbits(arrays["mask"], axis=2, count=size).view(np.bool_)

            shards.map_blocks(work, cut, merge, cluster=cluster)
            artefact.write("target", targets)
            _write_previews(artefact.file, images, rows, erm, params.previews)


def _model(erm: store.ModelFolder, params: SaliencyParams, on: torch.device) -> backbone.Classifier:
    model = backbone.load(erm, on)
    if params.method in package_cams.CLASSES or params.layer != "last":
        return model  # they look into the network as it was trained
    return backbone.for_inference(model, device.dtype(on, params.precision))


def _retraining_rows(images: store.Artefact, params: SaliencyParams) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = np.flatnonzero(images["split"][:] == 0)
    if params.method == "foreground":
        known = with_foreground(images, rows)
        if not len(known):
            raise MacError(f"{images.path}: no training image has a true mask, so saliency.method cannot be foreground")
        if len(known) < len(rows):
            log.info("true masks are known for %d of %d training images; the others are left out", len(known), len(rows))
        rows = known
    return balanced(rows, images["label"][:][rows], params.seed) if params.balance == "class" else rows


def balanced(rows: NDArray[np.int64], label: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """As many rows of each class as the smallest has, drawn without replacement, in their order.

    Args:
        rows, label: (M,) int64.

    Source: the paper's retraining set on CelebA ("class-balanced data"). Rows of the smallest class are all kept.
    """
    rng = np.random.default_rng(seed)
    members = [rows[label == c] for c in np.unique(label)]
    smallest = min(len(m) for m in members)
    log.info("class-balanced retraining set: %d of each class", smallest)
    return np.sort(np.concatenate([rng.choice(m, smallest, replace=False) for m in members]))


def with_foreground(images: store.Artefact, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows whose true mask is known."""
    if "has_foreground" not in images:
        return rows[:0]
    return np.asarray(rows[images["has_foreground"][:][rows]])


@dataclass(frozen=True)
class _Work:
    """The work as it travels: files by name, and what they must be."""

    images: Path
    erm: Path
    made_from: Mapping[str, str]
    params: SaliencyParams
    rows: NDArray[np.int64]
    k: int
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with store.open_artefact(self.images, "images", digest=self.made_from["images"]) as images:
            erm = store.open_model(self.erm, "erm", {"images": images.digest}, digest=self.made_from["erm"])
            on = device.pick(self.on)
            yield _Opened(images, erm, _model(erm, self.params, on), self.params, self.rows, self.k, on).block


@dataclass(frozen=True)
class _Opened:
    """What a block needs; `block` is a pure function of the block."""

    images: store.Artefact
    erm: store.ModelFolder
    model: backbone.Classifier
    params: SaliencyParams
    rows: NDArray[np.int64]
    k: int
    on: torch.device

    def block(self, block: Block) -> Arrays:
        parts = list(self._batches(self.rows[block.slice]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _batches(self, rows: NDArray[np.int64]) -> Iterator[Arrays]:
        size, how, batch = self.erm.spec["input_size"], self.erm.spec["to_input"], device.forward_batch(self.on)
        batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        for part, stored in zip(batches, image_batches(self.images, batches, self.on), strict=True):
            x = normalize(to_input_grid(stored, size, how), self.model.dtype)
            label = torch.from_numpy(self.images.rows("label", part)).to(self.on)
            foreground = None
            if self.params.method == "foreground":
                foreground = to_input_grid(torch.from_numpy(self.images.rows("foreground", part)).to(self.on), size, how)
            maps = METHODS[self.params.method](self.model, Batch(part, x, label, foreground), self.params)
            if not maps.cam.isfinite().all():
                bad = int(part[int((~maps.cam.isfinite()).flatten(1).any(1).nonzero()[0, 0])])
                raise MacError(f"saliency: the map of row {bad} is not finite; the model in {self.erm.path} has diverged, lower train.lr")
            mask = foreground if foreground is not None else top_k_mask(upsample(maps.cam, size), self.k)
            packed = np.packbits(mask.cpu().numpy(), axis=2)
            yield {"cam": maps.cam.cpu().numpy(), "mask": packed, "target": maps.target.cpu().numpy()}


def _write_previews(file: h5py.File, images: store.Artefact, rows: NDArray[np.int64], erm: store.ModelFolder, count: int) -> None:
    """Overlays of evenly spread rows, marked as pictures (HDF5 Image and Palette Specification 1.2) for HDF viewers."""
    group = file.create_group("preview")
    group.attrs["about"] = "the core in colour, the rest dimmed; each dataset is a picture of one row of images.h5"
    for sample in np.unique(np.linspace(0, len(rows) - 1, count).astype(int)):
        row = int(rows[sample])
        grid = to_input_grid(torch.from_numpy(images["image"][row][None]), erm.spec["input_size"], erm.spec["to_input"])
        picture = visual.overlay(grid[0].permute(1, 2, 0).numpy(), file["mask"][sample])
        dataset = group.create_dataset(f"row_{row:07d}", data=picture)
        for axis, dim in enumerate(("height", "width", "channel")):
            dataset.dims[axis].label = dim
        attributes = {"CLASS": "IMAGE", "IMAGE_VERSION": "1.2", "IMAGE_SUBCLASS": "IMAGE_TRUECOLOR", "INTERLACE_MODE": "INTERLACE_PIXEL"}
        for name, value in attributes.items():
            dataset.attrs[name] = np.bytes_(value)
