"""Stage features: computes φ of all views that retraining uses, once (paper equations 1 and 2).

For an image i of the retraining set, in each draw: φ(masked) and φ(combined with its partner j).
With `low_loss` below 1, only images of low ERM loss are intervened on and are partners (as in DaC, Noohdani
et al. 2024). The others have these views too, but `train/intervened` says that they do not count.
For a validation image with a mask, for the diagnosis: φ of its core alone, of its rest alone, and combined
with two partners: one of another class, and one of the same class. All partners are of the retraining set.
φ(x) of all images comes from stage originals.
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
from pipeline.compute.engine import Arrays, Block, Into, Scratch
from pipeline.compute.passes import cut, joined, passes
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.made_with import require_made_with
from pipeline.method import interventions
from pipeline.method.draws import Draws
from pipeline.network.loading import prefetch, to_pinned
from pipeline.params.features import FeaturesParams
from pipeline.project import Opened, Reference
from pipeline.results.blocks import in_blocks, logits
from pipeline.schemas.features import SCHEMA
from pipeline.schemas.originals import of_split
from pipeline.steps.originals import Network
from pipeline.store import SPLITS, Artefact, FittedHeads

BATCHES = 8  # forward passes in a block
SPLIT_OF = {"": "train", "val/": "val"}  # by the part of masks.h5
ALONE = {"masked": interventions.masked, "rest": interventions.rest}  # views without a partner

Pair = tuple[Tensor, Tensor]  # images and their masks


def features(given: Opened, out: Path, params: FeaturesParams, context: Context) -> None:
    """Write features.h5. The originals are copied from originals.h5.

    Args:
        given: images, erm, originals and masks.

    Raises:
        MacError: originals.h5 was made in another precision, or lacks images of masks.h5; or all images of
            the retraining set, or all with a low loss, have one label, so none has a partner.
    """
    images, masks, originals = given.file("images"), given.file("masks"), given.file("originals")
    on = context.on
    made_from = given.digests("images", "erm", "originals", "masks")
    reference = given.reference("images", "erm", "masks")
    where = on.type if context.cluster else str(on)
    width = given.model("erm").head().weight.shape[-1]
    names = {name: images.attribute(name) for name in ("classes", "attributes")}
    at = {split: np.arange(len(originals[f"{split}/row"])) for split in SPLITS}
    at["train"] = _retraining_set(given, params)

    intervened = None
    if params.low_loss < 1:
        loss = _losses(originals, at["train"], given.model("erm").head())
        intervened = loss <= np.quantile(loss, params.low_loss)
        log.info("%d of %d training images are masked and combined", intervened.sum(), len(intervened))
    draws = Draws.make(images, masks, params, intervened)
    validation = Draws.of_validation(images, masks, params)
    parts = [each for each in (draws, validation) if each is not None]
    hardware = device.hardware_of(context.on, context.workers)
    with (
        Scratch(context.scratch, "features", __name__, params.model_dump(), made_from, hardware) as scratch,
        store.create(
            out, "features", SCHEMA, params.model_dump(), made_from, scratch.folder, **names
        ) as artefact,
    ):
        for split, positions in at.items():
            _copy(artefact, originals, split, positions, params.storage)
        if validation is not None:
            artefact.write("val/position", np.searchsorted(originals["val/row"][:], validation.rows))
        for part in parts:
            split = SPLIT_OF[part.part]
            part.write(artefact, split)
            into, blocks = _places(artefact, part, width, params.storage), cut(len(part.rows), BATCHES, on)
            work = _Work(reference, params, part, where)
            scratch.map_blocks(work, blocks, into=into, part=split, cluster=context.cluster)


def _retraining_set(given: Opened, params: FeaturesParams) -> NDArray[np.int64]:
    """Where originals.h5 has the retraining set of masks.h5, (M,) positions in train/.

    Raises:
        MacError: it lacks some, or was made in another precision.
    """
    originals, kinds = given.file("originals"), given.project.kinds
    made = {"features.precision": given.stated("originals", "precision")}
    wanted = {"features.precision": params.precision}
    require_made_with(originals.path, made, wanted, f"{kinds['originals'].remedy} again")
    rows, known = given.file("masks")["row"][:], originals["train/row"][:]
    if not np.isin(rows, known).all():
        raise MacError(
            f"{given.file('masks').path}: has images that {originals.path} lacks: they were made with other "
            "values of retraining_set; run 'mac saliency', 'mac masks' and 'mac originals' again"
        )
    at: NDArray[np.int64] = np.searchsorted(known, rows)
    return at


def _copy(
    artefact: store.Writer, originals: Artefact, split: str, positions: NDArray[np.int64], storage: str
) -> None:
    """Write what originals.h5 has of some positions (n,) of a split."""
    for name in of_split(split):
        found = originals[name]
        dtype = storage if name == f"{split}/original" else None
        written = artefact.create(name, (len(positions), *found.shape[1:]), dtype)
        for each in in_blocks(np.arange(len(positions)), found):
            values = originals.rows(name, positions[each])
            written[each[0] : each[-1] + 1] = _storable(values, storage) if dtype else values


def _storable(phi: NDArray[np.float32], storage: str) -> NDArray[np.float32]:
    """Features that are not too large to be stored.

    Raises:
        MacError: some are.
    """
    if (most := np.abs(phi).max(initial=0)) > np.finfo(storage).max:
        raise MacError(
            f"features: they go up to {most:g}, too large for float16; set features.storage to float32"
        )
    return phi


def _losses(originals: Artefact, positions: NDArray[np.int64], head: FittedHeads) -> NDArray[np.float64]:
    """The cross-entropy of a head (S = 1) on the originals at some positions (M,) in train/; (M,)."""
    label = originals["train/label"][:][positions]
    log_p = log_softmax(logits(head, originals["train/original"])[0, positions].astype(np.float64), axis=1)
    return -np.take_along_axis(log_p, label[:, None], 1)[:, 0]


def _places(artefact: store.Writer, draws: Draws, width: int, storage: str) -> Into:
    """Make the datasets of the views of some draws."""
    order = draws.order
    place = None if order is None else order.argsort(1)  # (R, M), of each image
    places: dict[str, store.Rows] = {}
    for name in draws.views:
        path, shape = f"{SPLIT_OF[draws.part]}/{name}", (*draws.batch.shape, width)
        places[name] = artefact.place(path, shape, axis=1, order=place, dtype=storage)
    return places


@dataclass(frozen=True)
class _Work:
    """The work on the views of some draws, as it is sent to another process.

    Attributes:
        reference: images, erm and masks.
        on: name of the device.
    """

    reference: Reference
    params: FeaturesParams
    draws: Draws
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            network = _Network.of(given, self.on, self.params)
            yield _Drawn(network, self.draws, self.params.storage).block


class _Network(Network):
    """The network, and how the inputs of views are made."""

    def core(self, mask: Tensor) -> Tensor:
        """Masks (B, S, S) bool to (B, 3, S, S), 1 in the core."""
        values = mask.to(self.on, non_blocking=True)[:, None].to(self.model.dtype)
        return _laid_out(values, (3, *mask.shape[1:]))

    def fill(self, fill: NDArray[np.float32], width: int) -> Tensor:
        """Fills (B, 3) in [0, 1] to (B, 3, 1, width), normalised."""
        values = self.model.input(torch.from_numpy(fill).to(self.on)[:, :, None, None])
        return _laid_out(values, (3, 1, width))


@dataclass(frozen=True)
class _Drawn:
    """All that a block of images with masks needs. `block` is a pure function of the block."""

    network: _Network
    draws: Draws
    storage: str

    def block(self, block: Block) -> Arrays:
        """φ of all views of a block."""
        batches = passes(block, self.network.on)
        found = []
        for positions, read in zip(batches, prefetch(map(self._read, batches)), strict=True):
            found.append(self._features(positions, read))
        return joined(found, axis=1)

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
        """φ of each view in each draw, (R, B, D)."""
        own, partners = self._seen(read[0]), read[1]
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.draws.views}
        for r, fill in enumerate(self.draws.fill[:, positions]):
            b = self.network.fill(fill, own[0].shape[3])
            for name, features in found.items():
                if name in partners:
                    view = interventions.combined(*own, *self._seen(partners[name][r]), b)
                else:
                    view = ALONE[name](*own, b)
                features.append(_storable(self.network.features(view), self.storage))
        return {name: np.stack(features) for name, features in found.items()}

    def _seen(self, read: Pair) -> Pair:
        """Stored images and their masks, ready for the network."""
        stored, mask = read
        return self.network.input(stored), self.network.core(mask)


def _laid_out(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Values expanded to (B, *shape), in the memory layout of the images.

    Tensors with the same layout are blended several times faster.
    """
    return values.expand(-1, *shape).contiguous(memory_format=torch.channels_last)
