"""Stage features: computes φ of all views that retraining uses, once (paper equations 1 and 2).

For an image i of the retraining set: φ(x_i), and in each draw φ(masked) and φ(combined with its partner j).
With `low_loss` below 1, only images of low ERM loss are intervened on and are partners (as in DaC, Noohdani
et al. 2024). The others have these views too, but `train/intervened` says that they do not count.
For an image of the held-out splits: φ(x). For a validation image with a mask also, for the diagnosis: φ of
its core alone, of its rest alone, and combined with two partners: one of another class, and one of the same
class. All partners are of the retraining set.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Into, Shards, blocks
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.method import interventions
from pipeline.method.draws import Draws, Views
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.network.loading import image_batches, prefetch, to_pinned
from pipeline.params.features import FeaturesParams
from pipeline.project import Opened, Reference
from pipeline.schemas.features import SCHEMA
from pipeline.store import SPLITS, FittedHeads
from pipeline.store.schema import LARGEST

BATCHES = 8  # in a block; whole batches, as in stage saliency
ORIGINAL: Views = ("original",)
ALONE = {"masked": interventions.masked, "rest": interventions.rest}  # views without a partner

Pair = tuple[Tensor, Tensor]  # images and their masks


def features(given: Opened, out: Path, params: FeaturesParams, context: Context) -> None:
    """Write features.h5.

    Args:
        given: images, erm and masks.

    Raises:
        MacError: all images of the retraining set, or all with a low loss, have one label, so none has a
            partner.
    """
    images, masks = given.file("images"), given.file("masks")
    on = context.on
    made_from = given.digests("images", "erm", "masks")
    reference = given.reference("images", "erm", "masks")
    where = on.type if context.cluster else str(on)
    label, attribute = images["label"][:], images["attribute"][:]
    width = given.model("erm").head().weight.shape[-1]
    names = {name: images.attribute(name) for name in ("classes", "attributes")}

    def work(part: _Part) -> _Work:
        return _Work(reference, params, part, where)

    hardware = device.hardware_of(context.on, context.workers)
    with Shards(context.scratch, "features", __name__, params.model_dump(), made_from, hardware) as shards:
        original = intervened = None
        if params.low_loss < 1:
            alone = _Part("train", masks["row"][:], None, ORIGINAL)
            original = _originals(work(alone), shards, width, context)
            loss = _losses(original, given.model("erm").head(), label[alone.rows])
            intervened = loss <= np.quantile(loss, params.low_loss)
            log.info("%d of %d training images are masked and combined", intervened.sum(), len(intervened))
        draws = Draws.make(images, masks, params, intervened)
        validation = Draws.of_validation(images, masks, params)
        rows = {split: given.rows(split) for split in SPLITS} | {"train": draws.rows}
        views = draws.views if original is None else tuple(name for name in draws.views if name != "original")
        parts = {
            "train": _Part("train", draws.rows, draws, views),
            "val": _Part("val", rows["val"], None, ORIGINAL),
            "test": _Part("test", rows["test"], None, ORIGINAL),
        }
        if validation is not None:
            parts["val-diagnosis"] = _Part("val", validation.rows, validation, validation.views)
        with store.create(
            out, "features", SCHEMA, params.model_dump(), made_from, shards.folder, **names
        ) as artefact:
            for split, of_split in rows.items():
                artefact.write(f"{split}/row", of_split)
                artefact.write(f"{split}/label", label[of_split])
                artefact.write(f"{split}/attribute", attribute[of_split])
            draws.write(artefact, "train")
            if original is not None:
                artefact.write("train/original", original)
            if validation is not None:
                artefact.write("val/position", np.searchsorted(rows["val"], validation.rows))
                validation.write(artefact, "val")
            places = {name: _places(artefact, part, width) for name, part in parts.items()}
            for name, part in parts.items():
                cut = _cut(part, on)
                shards.map_blocks(work(part), cut, None, places[name], name, cluster=context.cluster)


@dataclass(frozen=True)
class _Part:
    """Images of a split, and what is made of them.

    Attributes:
        rows: (M,) rows of images.h5.
        draws: the draws over these rows; None if only the originals are wanted.
        views: the views that are made of them.
    """

    split: str
    rows: NDArray[np.int64]
    draws: Draws | None
    views: Views


def _places(artefact: store.Writer, part: _Part, width: int) -> Into:
    """Make the datasets of the part's views."""
    places: dict[str, store.Rows] = {}
    for name in part.views:
        drawn = (len(part.draws.batch),) if part.draws and name != "original" else ()
        shape = (*drawn, len(part.rows), width)
        places[name] = artefact.place(f"{part.split}/{name}", shape, axis=len(drawn))
    return places


def _cut(part: _Part, on: torch.device) -> list[Block]:
    return blocks(len(part.rows), BATCHES * device.forward_batch(on))


def _originals(work: "_Work", shards: Shards, width: int, context: Context) -> NDArray[np.float32]:
    """φ of the original images of the work's rows, (M, D)."""
    found = np.empty((len(work.part.rows), width), np.float32)

    def merge(block: Block, arrays: Arrays) -> None:
        found[block.slice] = arrays["original"]

    cut = _cut(work.part, context.on)
    shards.map_blocks(work, cut, merge, part="originals", cluster=context.cluster)
    return found


def _losses(phi: NDArray[np.float32], head: FittedHeads, label: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cross-entropy of a head (S = 1) on features (M, D) with the labels (M,); (M,)."""
    log_p = log_softmax(head.logits(phi)[0].astype(np.float64), axis=1)
    return -np.take_along_axis(log_p, label[:, None], 1)[:, 0]


@dataclass(frozen=True)
class _Work:
    """The work on one part, as it is sent to another process.

    Attributes:
        reference: images, erm and masks.
        on: name of the device.
    """

    reference: Reference
    params: FeaturesParams
    part: _Part
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            erm, on = given.model("erm"), device.pick(self.on)
            loaded = classifier.load(erm.spec, erm.read(), on)
            model = classifier.for_inference(loaded, device.dtype(on, self.params.precision))
            network = _Network(given, model, on)
            if self.part.draws is None:
                yield _Originals(network, self.part.rows).block
            else:
                yield _Drawn(network, self.part.draws, self.part.views).block


@dataclass(frozen=True)
class _Network:
    """The network, and how its inputs are made."""

    given: Opened
    model: Classifier
    on: torch.device

    def batches(self, block: Block) -> list[NDArray[np.int64]]:
        """The positions of a block, cut into forward passes."""
        size = device.forward_batch(self.on)
        starts = range(block.start, block.stop, size)
        return [np.arange(start, min(start + size, block.stop)) for start in starts]

    def input(self, stored: Tensor) -> Tensor:
        """Stored images (B, H, W, 3) uint8 to the network's input (B, 3, S, S)."""
        grid = to_input_grid(stored.to(self.on, non_blocking=True), self.given.model("erm").spec)
        return self.model.input(grid)

    def core(self, mask: Tensor) -> Tensor:
        """Masks (B, S, S) bool to (B, 3, S, S), 1 in the core."""
        values = mask.to(self.on, non_blocking=True)[:, None].to(self.model.dtype)
        return _laid_out(values, (3, *mask.shape[1:]))

    def fill(self, fill: NDArray[np.float32], width: int) -> Tensor:
        """Fills (B, 3) in [0, 1] to (B, 3, 1, width), normalised."""
        values = self.model.input(torch.from_numpy(fill).to(self.on)[:, :, None, None])
        return _laid_out(values, (3, 1, width))

    @torch.no_grad()
    def features(self, x: Tensor) -> NDArray[np.float32]:
        """φ, (B, D).

        Raises:
            MacError: they are not finite, or so large that features.h5 could not be opened.
        """
        found = self.model.features(x).cpu().numpy()
        if not (np.abs(found) <= LARGEST).all():
            model = self.given.model("erm").path
            raise MacError(
                f"features: they are NaN or above {LARGEST:g}; the model in {model} has diverged, "
                "lower train.lr"
            )
        return np.asarray(found)


@dataclass(frozen=True)
class _Originals:
    """All that a block of images without masks needs. `block` is a pure function of the block."""

    network: _Network
    rows: NDArray[np.int64]

    def block(self, block: Block) -> Arrays:
        """φ(x) of a block of rows."""
        images, on = self.network.given.file("images"), self.network.on
        batches = [self.rows[positions] for positions in self.network.batches(block)]
        found = []
        for stored in image_batches(images, batches, on):
            found.append(self.network.features(self.network.input(stored)))
        return {"original": np.concatenate(found)}


@dataclass(frozen=True)
class _Drawn:
    """All that a block of images with masks needs. `block` is a pure function of the block."""

    network: _Network
    draws: Draws
    views: Views

    def block(self, block: Block) -> Arrays:
        """φ of all views of a block."""
        batches = self.network.batches(block)
        found = []
        for positions, read in zip(batches, prefetch(map(self._read, batches)), strict=True):
            found.append(self._features(positions, read))
        joined = {}
        for name in self.views:
            joined[name] = np.concatenate([each[name] for each in found], axis=-2)
        return joined

    def _read(self, positions: NDArray[np.int64]) -> tuple[Pair, dict[str, list[Pair]]]:
        """Stored images (B, H, W, 3) and masks (B, S, S): their own; by view, their partners' by draw."""
        images, masks = self.network.given.file("images"), self.network.given.file("masks")

        def read(part: str, rows: NDArray[np.int64], each: NDArray[np.integer]) -> Pair:
            stored = to_pinned(images.rows("image", rows[each]), self.network.on)
            return stored, to_pinned(masks.rows(f"{part}mask", each), self.network.on)

        own = read(self.draws.part, self.draws.rows, positions)
        read_partner, partners = partial(read, "", self.draws.retraining), self.draws.partners.items()
        return own, {name: list(map(read_partner, each[:, positions])) for name, each in partners}

    def _features(self, positions: NDArray[np.int64], read: tuple[Pair, dict[str, list[Pair]]]) -> Arrays:
        """φ of each view: of the originals (B, D), of the others in each draw (R, B, D)."""
        own, partners = self._seen(read[0]), read[1]
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.views}
        for r, fill in enumerate(self.draws.fill[:, positions]):
            b = self.network.fill(fill, own[0].shape[3])
            for name, features in found.items():
                if name in partners:
                    view = interventions.combined(*own, *self._seen(partners[name][r]), b)
                    features.append(self.network.features(view))
                elif name != "original":
                    features.append(self.network.features(ALONE[name](*own, b)))
        stacked = {name: np.stack(features) for name, features in found.items() if features}
        if "original" in found:
            stacked["original"] = self.network.features(own[0])
        return stacked

    def _seen(self, read: Pair) -> Pair:
        """Stored images and their masks, ready for the network."""
        stored, mask = read
        return self.network.input(stored), self.network.core(mask)


def _laid_out(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Values expanded to (B, *shape), in the memory layout of the images.

    Tensors with the same layout are blended several times faster.
    """
    return values.expand(-1, *shape).contiguous(memory_format=torch.channels_last)
