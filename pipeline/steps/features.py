"""Stage features: computes φ of all views that retraining uses, once (paper equations 1 and 2).

For an image i of the retraining set: φ(x_i), and in each draw φ(masked) and φ(combined with its partner j).
For an image of the held-out splits: φ(x).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Merge, Shards, blocks
from pipeline.method import interventions, pairing
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.network.loading import image_batches, prefetch, to_pinned
from pipeline.params.features import FeaturesParams
from pipeline.project import Opened, Reference
from pipeline.schemas.features import SCHEMA
from pipeline.store import SPLITS, Artefact

BATCHES = 8  # in a block; whole batches, as in stage saliency


def features(given: Opened, out: Path, params: FeaturesParams, context: Context) -> None:
    """Write features.h5.

    Args:
        given: images, erm and masks.

    Raises:
        MacError: all images of the retraining set have one label, so none has a partner.
    """
    images, masks = given.file("images"), given.file("masks")
    on = context.on
    made_from = given.digests("images", "erm", "masks")
    reference = given.reference("images", "erm", "masks")
    where = on.type if context.cluster else str(on)
    draws = Draws.make(images, masks, params)
    label, attribute = images["label"][:], images["attribute"][:]
    width = given.model("erm").head().weight.shape[-1]
    names = {name: images.attribute(name) for name in ("classes", "attributes")}
    with ExitStack() as stack:
        # Finished blocks of all splits are kept until the artefact is complete.
        shards = {}
        for split in SPLITS:
            name = f"features-{split}"
            folder = Shards(context.scratch, name, params.model_dump(), made_from, on.type)
            shards[split] = stack.enter_context(folder)
        opened = store.create(out, "features", SCHEMA, params.model_dump(), made_from, **names)
        artefact = stack.enter_context(opened)
        artefact.write("train/partner", draws.partner)
        artefact.write("train/batch", draws.batch)
        artefact.write("train/fill", draws.fill)
        for split in SPLITS:
            rows = draws.rows if split == "train" else given.rows(split)
            artefact.write(f"{split}/row", rows)
            artefact.write(f"{split}/label", label[rows])
            artefact.write(f"{split}/attribute", attribute[rows])
            work = _Work(reference, params, rows, draws if split == "train" else None, where)
            cut = blocks(len(rows), BATCHES * device.forward_batch(on))
            merge = _merge(artefact, split, (params.draws, len(rows), width))
            shards[split].map_blocks(work, cut, merge, cluster=context.cluster)


def _merge(artefact: store.Writer, split: str, shape: tuple[int, int, int]) -> Merge:
    """Make the datasets of one split; return the function that writes a block. `shape` is (R, M, D)."""
    datasets = {"original": artefact.create(f"{split}/original", shape[1:])}
    if split == "train":
        for name in ("masked", "combined"):
            datasets[name] = artefact.create(f"{split}/{name}", shape)

    def merge(block: Block, arrays: Arrays) -> None:
        for name, dataset in datasets.items():
            dataset[(..., block.slice, slice(None))] = arrays[name]

    return merge


@dataclass(frozen=True)
class Draws:
    """All R draws over the M images of masks.h5.

    Attributes:
        rows: (M,) rows of images.h5.
        partner: (R, M) int32, position of the partner, 0 … M − 1.
        batch: (R, M) int32, the batch of the image.
        fill: (R, M, 3) float32 in [0, 1].
    """

    rows: NDArray[np.int64]
    partner: NDArray[np.int32]
    batch: NDArray[np.int32]
    fill: NDArray[np.float32]

    @classmethod
    def make(cls, images: Artefact, masks: Artefact, params: FeaturesParams) -> "Draws":
        """Draw them. Partners and batches depend only on the labels, the seed and the batch size.

        Raises:
            MacError: all images have one label.
        """
        rows = masks["row"][:]
        label, channel_mean = images["label"][:][rows], masks["channel_mean"][:]
        draws = [pairing.draw(label, params.batch_size, params.seed, r) for r in range(params.draws)]
        return cls(
            rows,
            np.stack([draw.partner for draw in draws]),
            np.stack([draw.batch for draw in draws]),
            np.stack([pairing.fills(channel_mean, draw.batch) for draw in draws]),
        )


@dataclass(frozen=True)
class _Work:
    """The work on one split, as it is sent to another process.

    Attributes:
        reference: images, erm and masks.
        rows: rows of images.h5.
        draws: the draws, for the training split; None for a held-out split.
        on: name of the device.
    """

    reference: Reference
    params: FeaturesParams
    rows: NDArray[np.int64]
    draws: Draws | None
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            erm, on = given.model("erm"), device.pick(self.on)
            loaded = classifier.load(erm.spec, erm.read(), on)
            model = classifier.for_inference(loaded, device.dtype(on, self.params.precision))
            network = _Network(given, model, on)
            if self.draws is None:
                yield _HeldOut(network, self.rows).block
            else:
                yield _Training(network, self.draws).block


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
        """φ, (B, D)."""
        return self.model.features(x).cpu().numpy()


@dataclass(frozen=True)
class _HeldOut:
    """All that a block of held-out images needs. `block` is a pure function of the block."""

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
class _Training:
    """All that a block of the retraining set needs. `block` is a pure function of the block."""

    network: _Network
    draws: Draws

    def block(self, block: Block) -> Arrays:
        """φ of all views of a block of the retraining set."""
        batches = self.network.batches(block)
        original, masked, combined = [], [], []
        for positions, read in zip(batches, prefetch(map(self._read, batches)), strict=True):
            views = self._views(positions, read)
            original.append(views["original"])
            masked.append(views["masked"])
            combined.append(views["combined"])
        return {
            "original": np.concatenate(original),
            "masked": np.concatenate(masked, axis=1),
            "combined": np.concatenate(combined, axis=1),
        }

    def _read(self, positions: NDArray[np.int64]) -> list[tuple[Tensor, Tensor]]:
        """Stored images (B, H, W, 3) and masks (B, S, S): their own; then, for each draw, their partners'."""
        images, masks = self.network.given.file("images"), self.network.given.file("masks")
        found = []
        for each in (positions, *self.draws.partner[:, positions]):
            stored = to_pinned(images.rows("image", self.draws.rows[each]), self.network.on)
            found.append((stored, to_pinned(masks.rows("mask", each), self.network.on)))
        return found

    def _views(self, positions: NDArray[np.int64], read: list[tuple[Tensor, Tensor]]) -> Arrays:
        """φ of the originals (B, D), and of the masked and the combined views of each draw (R, B, D)."""
        network = self.network
        x_i, m_i = self._seen(read[0])
        masked, combined = [], []
        for fill, partner in zip(self.draws.fill[:, positions], read[1:], strict=True):
            x_j, m_j = self._seen(partner)
            b = network.fill(fill, x_i.shape[3])
            masked.append(network.features(interventions.masked(x_i, m_i, b)))
            combined.append(network.features(interventions.combined(x_i, m_i, x_j, m_j, b)))
        original = network.features(x_i)
        return {"original": original, "masked": np.stack(masked), "combined": np.stack(combined)}

    def _seen(self, read: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Stored images and their masks, ready for the network."""
        stored, mask = read
        return self.network.input(stored), self.network.core(mask)


def _laid_out(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Values expanded to (B, *shape), in the memory layout of the images.

    Tensors with the same layout are blended several times faster.
    """
    return values.expand(-1, *shape).contiguous(memory_format=torch.channels_last)
