"""Stage features: φ of every view that retraining will ever see, computed once (paper equations 1 and 2).

For a training image i and each draw r: φ(x_i), φ(masked), φ(combined with its partner j); for validation and test φ(x).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import backbone, device, interventions, pairing, store
from pipeline.engine import Arrays, Block, Shards, blocks
from pipeline.inputs import normalize, to_input_grid
from pipeline.params import FeaturesParams
from pipeline.store import SPLITS, Artefact, ModelFolder

BATCH = 64  # images a forward pass
BLOCK = 4 * BATCH  # rows a shard; whole batches, as in stage saliency


def features(
    images_path: Path, erm_path: Path, masks_path: Path, out: Path, params: FeaturesParams, on: torch.device, scratch: Path
) -> None:
    """Write features.h5."""
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(masks_path, "masks", {"images": images.digest, "erm": erm.digest}) as masks:
            made_from = {"images": images.digest, "erm": erm.digest, "masks": masks.digest}
            plan = Plan.make(images, masks, params)
            work = _Work(images, masks, erm, backbone.load(erm, on), params, plan, on)
            rows = {part: np.flatnonzero(images["split"][:] == number) for number, part in enumerate(SPLITS)} | {"train": plan.rows}
            shards = {part: Shards(scratch, f"features-{part}", params.model_dump(), made_from, on.type) for part in SPLITS}
            functions = {part: work.train_block if part == "train" else partial(work.block, rows[part]) for part in SPLITS}
            views = {part: shards[part].map_blocks(functions[part], blocks(len(rows[part]), BLOCK), workers=1) for part in SPLITS}
            label, attribute = images["label"][:], images["attribute"][:]
            names = {"classes": images.attribute("classes"), "attributes": images.attribute("attributes")}
            with store.create(out, "features", params.model_dump(), made_from, **names) as artefact:
                artefact.write("train/partner", plan.partner)
                artefact.write("train/batch", plan.batch)
                artefact.write("train/fill", plan.fill)
                for part in SPLITS:
                    artefact.write(f"{part}/row", rows[part])
                    artefact.write(f"{part}/label", label[rows[part]])
                    artefact.write(f"{part}/attribute", attribute[rows[part]])
                    _merge(artefact, part, views[part], (params.draws, len(rows[part]), erm.head()[0].shape[1]))
            for done in shards.values():
                done.remove()


def _merge(artefact: store.Writer, part: str, views: Iterable[tuple[Block, Arrays]], shape: tuple[int, int, int]) -> None:
    """Write the blocks of one split; `shape` is (R, rows, D)."""
    datasets = {"original": artefact.create(f"{part}/original", shape[1:])}
    if part == "train":
        datasets |= {name: artefact.create(f"{part}/{name}", shape) for name in ("masked", "combined")}
    for block, arrays in views:
        for name, dataset in datasets.items():
            dataset[(..., block.slice, slice(None))] = arrays[name]


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
    images: Artefact
    masks: Artefact
    erm: ModelFolder
    model: backbone.Classifier
    params: FeaturesParams
    plan: Plan
    on: torch.device

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> NDArray[np.float32]:
        """φ of (B, 3, H, W) pixels, uint8 or float in [0, 1]: (B, D) float32."""
        with device.autocast(self.on, self.params.precision):
            return self.model.features(normalize(pixels)).cpu().numpy()

    def pixels(self, rows: NDArray[np.integer]) -> Tensor:
        """(B,) rows of images.h5 to (B, 3, H, W) uint8 on the device."""
        stored = torch.from_numpy(self.images.rows("image", rows)).to(self.on)
        return to_input_grid(stored, self.erm.spec["input_size"], self.erm.spec["to_input"])

    def core(self, samples: NDArray[np.integer]) -> Tensor:
        """(B,) positions in masks.h5 to masks (B, 1, H, W) bool on the device."""
        return torch.from_numpy(self.masks.rows("mask", samples)).to(self.on)[:, None]

    def block(self, rows: NDArray[np.int64], block: Block) -> Arrays:
        """φ(x) of a block of `rows`."""
        part = rows[block.slice]
        return {
            "original": np.concatenate([self.forward(self.pixels(part[start : start + BATCH])) for start in range(0, len(part), BATCH)])
        }

    def train_block(self, block: Block) -> Arrays:
        """φ of all views of a block of the retraining set."""
        parts = [self._views(np.arange(start, min(start + BATCH, block.stop))) for start in range(block.start, block.stop, BATCH)]
        return {name: np.concatenate([part[name] for part in parts], axis=0 if name == "original" else 1) for name in parts[0]}

    def _views(self, samples: NDArray[np.int64]) -> Arrays:
        original = self.pixels(self.plan.rows[samples])
        x_i, m_i = original.float() / 255, self.core(samples)
        masked, combined = [], []
        for r in range(self.params.draws):
            j = self.plan.partner[r, samples]
            b = torch.from_numpy(self.plan.fill[r, samples]).to(self.on)[:, :, None, None]
            x_j, m_j = self.pixels(self.plan.rows[j]).float() / 255, self.core(j)
            masked.append(self.forward(interventions.masked(x_i, m_i, b)))
            combined.append(self.forward(interventions.combined(x_i, m_i, x_j, m_j, b)))
        return {"original": self.forward(original), "masked": np.stack(masked), "combined": np.stack(combined)}
