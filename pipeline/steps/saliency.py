"""Stage saliency: finds the core of every image of the retraining set (paper section 3.2).

The validation images get masks in the same way, for the diagnosis.

    image -> map (xGradCAM for the target class) -> upsampled to the input grid -> mask: the K highest pixels

`pipeline.method.maps` has the maps; `pipeline.method.retraining_set` chooses the images.
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
from pipeline.compute.engine import Arrays, Block, Shards, blocks
from pipeline.errors import MacError
from pipeline.method import maps, pairing
from pipeline.method.masks import core_of, core_size, pixel_count
from pipeline.method.retraining_set import draw_rows, with_foreground
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params.maps import MapParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.project import Opened, Reference
from pipeline.results.previews import write_previews
from pipeline.schemas.masks import SCHEMA

BATCHES = 16  # in a block; a block has whole batches, so that the same images always share a batch


def saliency(
    given: Opened,
    out: Path,
    retraining_set: RetrainingSetParams,
    params: SaliencyParams,
    context: Context,
) -> None:
    """Write masks.h5 of the retraining set and of the validation images.

    Raises:
        MacError: `top_k` leaves no core, or is larger than the input grid; the method needs true masks and
            there are none; or a map is not finite.
    """
    known_only = params.method == "foreground"
    images, validation = given.file("images"), given.rows("val")
    rows = draw_rows(images, given.rows("train"), retraining_set, known_only)
    if known_only:
        validation = with_foreground(images, validation)
    write_masks(given, out, rows, params, params.previews, context, retraining_set, validation)


def write_masks(
    given: Opened,
    out: Path,
    rows: NDArray[np.int64],
    params: MapParams,
    previews: int,
    context: Context,
    retraining_set: RetrainingSetParams | None = None,
    validation: NDArray[np.int64] | None = None,
) -> None:
    """Write masks.h5 for the given rows.

    Args:
        given: images and erm.
        rows: (M,) rows of images.h5.
        previews: how many pictures to write.
        retraining_set: how the rows were chosen; it is noted in the file.
        validation: (V,) rows of the validation images that get masks too; None or empty for none of them.

    Raises:
        MacError: `top_k` leaves no core, or is larger than the input grid; or a map is not finite.
    """
    images, spec = given.file("images"), given.model("erm").spec
    on, k = context.on, _k(params, spec.input_size)
    made_from = given.digests("images", "erm")
    where = on.type if context.cluster else str(on)
    parts = {"": rows}
    if validation is not None and len(validation):
        parts["val/"] = validation
    shaping = params.model_dump(include=set(MapParams.model_fields))
    noted = {**shaping, "previews": previews}
    if retraining_set is not None:
        noted["retraining_set"] = retraining_set.model_dump()
    with ExitStack() as stack:
        # Finished blocks of both parts are kept until the artefact is complete.
        shards = {}
        for prefix, part in parts.items():
            name = "saliency-val" if prefix else "saliency"
            folder = Shards(context.scratch, name, shaping, made_from, on.type, part.tolist())
            shards[prefix] = stack.enter_context(folder)
        artefact = stack.enter_context(store.create(out, "masks", SCHEMA, noted, made_from))
        for prefix, part in parts.items():
            work = _Work(given.reference("images", "erm"), params, part, k, where)
            _write_part(artefact, prefix, work, spec.input_size, shards[prefix], context)
        write_previews(artefact.file, images, spec, previews)


def _k(params: MapParams, size: int) -> int:
    """K in pixels, of which a core is left."""
    try:
        k = pixel_count(params.top_k, size)
    except MacError as error:
        raise MacError(f"saliency.{error}") from None
    if not core_size(params.top_k, size, params.side):
        raise MacError(f"saliency.top_k: with saliency.side 'rest', {k} of {size}² pixels leave no core")
    return k


def _write_part(
    artefact: store.Writer, prefix: str, work: "_Work", size: int, shards: Shards, context: Context
) -> None:
    """Compute and write the masks of the work's rows, into the datasets with this prefix."""
    count = len(work.rows)
    artefact.write(f"{prefix}row", work.rows)
    target = np.empty(count, np.int64)
    channel_mean = np.empty((count, 3), np.float32)
    mask = artefact.create(f"{prefix}mask", (count, size, size))

    def merge(block: Block, arrays: Arrays) -> None:
        if block.start == 0:
            artefact.create(f"{prefix}cam", (count, *arrays["cam"].shape[1:]))
        artefact.file[f"{prefix}cam"][block.slice] = arrays["cam"]
        target[block.slice] = arrays["target"]
        channel_mean[block.slice] = arrays["channel_mean"]
        mask[block.slice] = np.unpackbits(arrays["mask"], axis=2, count=size).view(np.bool_)

    cut = blocks(count, BATCHES * device.forward_batch(context.on))
    shards.map_blocks(work, cut, merge, cluster=context.cluster)
    artefact.write(f"{prefix}target", target)
    artefact.write(f"{prefix}channel_mean", channel_mean)


@dataclass(frozen=True)
class _Work:
    """The work, as it is sent to another process.

    Attributes:
        reference: images and erm.
        rows: the retraining set, or the validation images; rows of images.h5.
        k: pixels in a mask.
        on: name of the device.
    """

    reference: Reference
    params: MapParams
    rows: NDArray[np.int64]
    k: int
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            erm, on = given.model("erm"), device.pick(self.on)
            model = classifier.load(erm.spec, erm.read(), on)
            if not maps.looks_inside(self.params):
                model = classifier.for_inference(model, device.dtype(on, self.params.precision))
            yield _Masking(self, given, model, on).block


@dataclass(frozen=True)
class _Masking:
    """All that a block needs. `block` is a pure function of the block."""

    work: _Work
    given: Opened
    model: Classifier
    on: torch.device

    def block(self, block: Block) -> Arrays:
        """Map, packed mask, target and channel means of a block of rows."""
        found = list(self._batches(self.work.rows[block.slice]))
        joined = {}
        for name in found[0]:
            joined[name] = np.concatenate([arrays[name] for arrays in found])
        return joined

    @torch.no_grad()
    def _batches(self, rows: NDArray[np.int64]) -> Iterator[Arrays]:
        images, spec = self.given.file("images"), self.given.model("erm").spec
        size = device.forward_batch(self.on)
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        for batch_rows, stored in zip(batches, image_batches(images, batches, self.on), strict=True):
            grid = to_input_grid(stored, spec)
            label = torch.from_numpy(images.rows("label", batch_rows)).to(self.on)
            foreground = self._foreground(batch_rows)
            batch = maps.Batch(batch_rows, self.model.input(grid), label, foreground)
            found = maps.MAPS[self.work.params.method](self.model, batch, self.work.params)
            self._require_finite(found.cam, batch_rows)
            mask = foreground
            if mask is None:
                mask = core_of(found.cam, spec.input_size, self.work.k, self.work.params.side)
            yield {
                "cam": found.cam.cpu().numpy(),
                "mask": np.packbits(mask.cpu().numpy(), axis=2),
                "target": found.target.cpu().numpy(),
                "channel_mean": pairing.channel_mean(grid).cpu().numpy(),
            }

    def _foreground(self, rows: NDArray[np.int64]) -> Tensor | None:
        """(B, S, S) bool, the true masks, if the method needs them."""
        if self.work.params.method != "foreground":
            return None
        stored = torch.from_numpy(self.given.file("images").rows("foreground", rows)).to(self.on)
        return to_input_grid(stored, self.given.model("erm").spec)

    def _require_finite(self, cam: Tensor, rows: NDArray[np.int64]) -> None:
        bad = (~cam.isfinite()).flatten(1).any(1).nonzero()
        if len(bad):
            row, model = rows[int(bad[0, 0])], self.given.model("erm").path
            raise MacError(
                f"saliency: the map of row {row} is not finite; the model in {model} has diverged, "
                "lower train.lr"
            )
