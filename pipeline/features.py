"""Stage features: φ of every view that retraining will ever see, computed once (paper equations 1 and 2).

For a training image i and each draw r: φ(x_i), φ(masked), φ(combined with its partner j); for validation and test φ(x).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.engine import Arrays, Block, Cluster, Shards, blocks
from pipeline.method import interventions, pairing
from pipeline.network import backbone
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.network.loading import image_batches, prefetch, to_pinned
from pipeline.params import FeaturesParams
from pipeline.store import SPLITS, Artefact, ModelFolder

BATCHES = 8  # in a shard; whole batches, as in stage saliency


def features(
    images_path: Path,
    erm_path: Path,
    masks_path: Path,
    out: Path,
    params: FeaturesParams,
    on: torch.device,
    scratch: Path,
    cluster: Cluster | None = None,
) -> None:
    """Write features.h5; `cluster` does the work in place of this process."""
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(masks_path, "masks", {"images": images.digest, "erm": erm.digest}) as masks, ExitStack() as stack:
            made_from = {"images": images.digest, "erm": erm.digest, "masks": masks.digest}
            plan = Plan.make(images, masks, params)
            rows = {part: np.flatnonzero(images["split"][:] == number) for number, part in enumerate(SPLITS)} | {"train": plan.rows}
            label, attribute = images["label"][:], images["attribute"][:]
            names = {"classes": images.attribute("classes"), "attributes": images.attribute("attributes")}
            # What is done of all splits is kept until the artefact is whole.
            scratches = {part: Shards(scratch, f"features-{part}", params.model_dump(), made_from, on.type) for part in SPLITS}
            shards = {part: stack.enter_context(each) for part, each in scratches.items()}
            artefact = stack.enter_context(store.create(out, "features", params.model_dump(), made_from, **names))
            artefact.write("train/partner", plan.partner)
            artefact.write("train/batch", plan.batch)
            artefact.write("train/fill", plan.fill)
            for part in SPLITS:
                artefact.write(f"{part}/row", rows[part])
                artefact.write(f"{part}/label", label[rows[part]])
                artefact.write(f"{part}/attribute", attribute[rows[part]])
                paths = (images_path.resolve(), erm_path.resolve(), masks_path.resolve())
                work = _Work(*paths, made_from, params, plan if part == "train" else rows[part], on.type if cluster else str(on))
                cut = blocks(len(rows[part]), BATCHES * device.forward_batch(on))
                merge = _merge(artefact, part, (params.draws, len(rows[part]), erm.head()[0].shape[1]))
                shards[part].map_blocks(work, cut, merge, cluster=cluster)


def _merge(artefact: store.Writer, part: str, shape: tuple[int, int, int]) -> Callable[[Block, Arrays], None]:
    """Make the datasets of one split; what writes a block into them. `shape` is (R, rows, D)."""
    datasets = {"original": artefact.create(f"{part}/original", shape[1:])}
    if part == "train":
        datasets |= {name: artefact.create(f"{part}/{name}", shape) for name in ("masked", "combined")}

    def merge(block: Block, arrays: Arrays) -> None:
        for name, dataset in datasets.items():
            dataset[(..., block.slice, slice(None))] = arrays[name]

    return merge


@dataclass(frozen=True)
class Plan:
    """The pairing plan over the M rows of masks.h5.

    Attributes:
        rows: (M,) rows of images.h5.
        partner: (R, M) int32 position of the partner, 0 … M − 1.
        batch: (R, M) int32.
        fill: (R, M, 3) float32.
    """

    rows: NDArray[np.int64]
    partner: NDArray[np.int32]
    batch: NDArray[np.int32]
    fill: NDArray[np.float32]

    @classmethod
    def make(cls, images: Artefact, masks: Artefact, params: FeaturesParams) -> "Plan":
        """Draw it: a function of the labels, the seed and the batch size."""
        rows = masks["row"][:]
        label, channel_mean = images["label"][:][rows], images["channel_mean"][:][rows]
        draws = [pairing.draw(label, params.batch_size, params.seed, r) for r in range(params.draws)]
        return cls(
            rows,
            np.stack([draw.partner for draw in draws]),
            np.stack([draw.batch for draw in draws]),
            np.stack([pairing.fills(channel_mean, draw.batch) for draw in draws]),
        )


@dataclass(frozen=True)
class _Work:
    """The work as it travels: files by name, and what they must be; of the training split with the plan, of another its rows."""

    images: Path
    erm: Path
    masks: Path
    made_from: Mapping[str, str]
    params: FeaturesParams
    of: Plan | NDArray[np.int64]
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        on = device.pick(self.on)
        with (
            store.open_artefact(self.images, "images", digest=self.made_from["images"]) as images,
            store.open_artefact(self.masks, "masks", digest=self.made_from["masks"]) as masks,
        ):
            erm = store.open_model(self.erm, "erm", digest=self.made_from["erm"])
            model = backbone.for_inference(backbone.load(erm, on), device.dtype(on, self.params.precision))
            if isinstance(self.of, Plan):
                yield _Training(images, erm, model, on, masks, self.of).block
            else:
                yield _HeldOut(images, erm, model, on, self.of).block


@dataclass(frozen=True)
class _Opened:
    images: Artefact
    erm: ModelFolder
    model: backbone.Classifier
    on: torch.device

    def _batches(self, block: Block) -> list[NDArray[np.int64]]:
        size = device.forward_batch(self.on)
        return [np.arange(start, min(start + size, block.stop)) for start in range(block.start, block.stop, size)]

    def _input(self, stored: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 stored images to the network's input (B, 3, size, size)."""
        grid = to_input_grid(stored.to(self.on, non_blocking=True), self.erm.spec["input_size"], self.erm.spec["to_input"])
        return normalize(grid, self.model.dtype)

    def _core(self, mask: Tensor) -> Tensor:
        """(B, size, size) bool to (B, 3, size, size), 1 in the core."""
        return _laid_out(mask.to(self.on, non_blocking=True)[:, None].to(self.model.dtype), (3, *mask.shape[1:]))

    @torch.no_grad()
    def _forward(self, x: Tensor) -> NDArray[np.float32]:
        """φ, (B, D) float32."""
        return self.model.features(x).cpu().numpy()


@dataclass(frozen=True)
class _HeldOut(_Opened):
    rows: NDArray[np.int64]

    def block(self, block: Block) -> Arrays:
        """φ(x) of a block of rows."""
        batches = [self.rows[samples] for samples in self._batches(block)]
        return {"original": np.concatenate([self._forward(self._input(stored)) for stored in image_batches(self.images, batches, self.on)])}


@dataclass(frozen=True)
class _Training(_Opened):
    masks: Artefact
    plan: Plan

    def block(self, block: Block) -> Arrays:
        """φ of all views of a block of the retraining set."""
        batches = self._batches(block)
        parts = [self._views(samples, read) for samples, read in zip(batches, prefetch(map(self._read, batches)), strict=True)]
        return {name: np.concatenate([part[name] for part in parts], axis=0 if name == "original" else 1) for name in parts[0]}

    def _read(self, samples: NDArray[np.int64]) -> list[tuple[Tensor, Tensor]]:
        """Stored images (B, H, W, 3) and masks (B, H, W) of positions in masks.h5, then of their partners in each draw."""
        of_each = [samples, *self.plan.partner[:, samples]]
        stored = [(self.images.rows("image", self.plan.rows[each]), self.masks.rows("mask", each)) for each in of_each]
        return [(to_pinned(image, self.on), to_pinned(mask, self.on)) for image, mask in stored]

    def _views(self, samples: NDArray[np.int64], read: list[tuple[Tensor, Tensor]]) -> Arrays:
        (x_i, m_i), *partners = ((self._input(image), self._core(mask)) for image, mask in read)
        masked, combined = [], []
        for fill, (x_j, m_j) in zip(self.plan.fill[:, samples], partners, strict=True):
            b = normalize(torch.from_numpy(fill).to(self.on)[:, :, None, None], self.model.dtype)
            b = _laid_out(b, (3, 1, x_i.shape[3]))
            masked.append(self._forward(interventions.masked(x_i, m_i, b)))
            combined.append(self._forward(interventions.combined(x_i, m_i, x_j, m_j, b)))
        return {"original": self._forward(x_i), "masked": np.stack(masked), "combined": np.stack(combined)}


def _laid_out(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Written out to (B, *shape) in the layout of the images: rows that lie alike are blended several times faster."""
    return values.expand(-1, *shape).contiguous(memory_format=torch.channels_last)
