"""Stage originals: computes φ of the images as they are, φ(x), which do not change with masks or draws.

They are those of the retraining set, whatever `saliency.method` is, and all of the validation and test
splits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Into, Scratch
from pipeline.compute.passes import cut, joined, passes
from pipeline.errors import MacError
from pipeline.method.retraining_set import rows_to_draw
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params.originals import OriginalsParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.project import Opened, Reference
from pipeline.schemas.originals import SCHEMA
from pipeline.store import SPLITS
from pipeline.store.schema import LARGEST

N = TypeVar("N", bound="Network")

BATCHES = 8  # forward passes in a block


def originals(
    given: Opened,
    out: Path,
    retraining_set: RetrainingSetParams,
    params: OriginalsParams,
    context: Context,
) -> None:
    """Write originals.h5.

    Args:
        given: images and erm.

    Raises:
        MacError: a feature is not finite.
    """
    images, made_from = given.file("images"), given.digests("images", "erm")
    label, attribute = images["label"][:], images["attribute"][:]
    width = given.model("erm").head().weight.shape[-1]
    names = {name: images.attribute(name) for name in ("classes", "attributes")}
    where = context.on.type if context.cluster else str(context.on)
    rows = {split: given.rows(split) for split in SPLITS}
    rows["train"] = rows_to_draw(images, rows["train"], retraining_set)
    hardware = device.hardware_of(context.on, context.workers)
    noted = {"precision": params.precision, "retraining_set": retraining_set.model_dump()}
    with (
        Scratch(context.scratch, "originals", __name__, noted, made_from, hardware) as scratch,
        store.create(out, "originals", SCHEMA, noted, made_from, scratch.folder, **names) as artefact,
    ):
        for split, of_split in rows.items():
            artefact.write(f"{split}/row", of_split)
            artefact.write(f"{split}/label", label[of_split])
            artefact.write(f"{split}/attribute", attribute[of_split])
            work = _Work(given.reference("images", "erm"), params, of_split, where)
            into: Into = {"original": artefact.place(f"{split}/original", (len(of_split), width))}
            blocks = cut(len(of_split), BATCHES, context.on)
            scratch.map_blocks(work, blocks, into=into, part=split, cluster=context.cluster)


@dataclass(frozen=True)
class _Work:
    """The work on one split, as it is sent to another process.

    Attributes:
        reference: images and erm.
        rows: (n,) rows of images.h5.
        on: name of the device.
    """

    reference: Reference
    params: OriginalsParams
    rows: NDArray[np.int64]
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            yield _Originals(Network.of(given, self.on, self.params), self.rows).block


@dataclass(frozen=True)
class Network:
    """The network, and how its inputs are made."""

    given: Opened
    model: Classifier
    on: torch.device

    @classmethod
    def of(cls: type[N], given: Opened, on: str, params: OriginalsParams) -> N:
        """ERM on a device.

        Args:
            given: images and erm.
            on: name of the device.
        """
        erm, device_ = given.model("erm"), device.pick(on)
        loaded = classifier.load(erm.spec, erm.read(), device_)
        model = classifier.for_inference(loaded, device.dtype(device_, params.precision))
        return cls(given, model, device_)

    def input(self, stored: Tensor) -> Tensor:
        """Stored images (B, H, W, 3) uint8 to the network's input (B, 3, S, S)."""
        grid = to_input_grid(stored.to(self.on, non_blocking=True), self.given.model("erm").spec)
        return self.model.input(grid)

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
    """All that a block needs. `block` is a pure function of the block."""

    network: Network
    rows: NDArray[np.int64]

    def block(self, block: Block) -> Arrays:
        """φ(x) of a block of rows."""
        images, on = self.network.given.file("images"), self.network.on
        batches = [self.rows[positions] for positions in passes(block, on)]
        found = []
        for stored in image_batches(images, batches, on):
            found.append({"original": self.network.features(self.network.input(stored))})
        return joined(found)
