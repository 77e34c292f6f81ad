"""All draws over the images of masks.h5: over the retraining set, and over the validation images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.method import pairing
from pipeline.params.features import FeaturesParams
from pipeline.store import Artefact, Writer

Views = tuple[str, ...]
TRAINING: Views = ("masked", "combined")
BATCH, ANOTHER, SAME = 1, 2, 3  # streams of the draws over validation images
# Where features.h5 has the partners, by part and view.
PARTNERS = {
    ("", "combined"): "train/partner",
    ("val/", "combined"): "val/train_partner",
    ("val/", "combined_same"): "val/train_partner_same",
}


@dataclass(frozen=True)
class Draws:
    """All R draws over M images of masks.h5: the retraining set, or the validation images.

    All partners are of the retraining set.

    Attributes:
        part: where these images are in masks.h5: "" or "val/".
        views: the views that are made of them.
        rows: (M,) rows of images.h5.
        retraining: (N,) rows of images.h5 of the retraining set.
        partners: (R, M) int32 by view, the partner, 0 … N − 1: its position in train/ of features.h5.
        batch: (R, M) int32, the batch of the image.
        fill: (R, M, 3) float32 in [0, 1].
        intervened: (M,) bool, the images of the retraining set that are masked and combined; None if all are.
    """

    part: str
    views: Views
    rows: NDArray[np.int64]
    retraining: NDArray[np.int64]
    partners: Mapping[str, NDArray[np.int32]]
    batch: NDArray[np.int32]
    fill: NDArray[np.float32]
    intervened: NDArray[np.bool_] | None = None

    @classmethod
    def make(
        cls,
        images: Artefact,
        masks: Artefact,
        params: FeaturesParams,
        intervened: NDArray[np.bool_] | None = None,
    ) -> "Draws":
        """Draw over the retraining set. Batches depend on labels, seed and batch size alone.

        So do partners, but for `intervened`: (M,), the images that can be partners; None for all of them.

        Raises:
            MacError: all images, or all that can be partners, have one label.
        """
        rows = masks["row"][:]
        label = images["label"][:][rows]
        if intervened is not None and len(np.unique(label)) > len(np.unique(label[intervened])) == 1:
            raise MacError(
                f"features.low_loss: the {intervened.sum()} images with the lowest losses have one label, so "
                "none has a partner of another class; raise it"
            )
        cut = (label, params.batch_size, params.seed)
        draws = [pairing.draw(*cut, r, among=intervened) for r in range(params.draws)]
        partners = {"combined": np.stack([draw.partner for draw in draws])}
        batch = np.stack([draw.batch for draw in draws])
        fill = _fills(masks["channel_mean"][:], batch)
        return cls("", TRAINING, rows, rows, partners, batch, fill, intervened)

    @classmethod
    def of_validation(cls, images: Artefact, masks: Artefact, params: FeaturesParams) -> "Draws | None":
        """Draw over the validation images that have a mask; None if none has.

        Partners are drawn from the whole retraining set, whatever `low_loss` is. If it lacks a class of these
        images, some have no partner of the same class, and that view is left out.
        """
        if "val/row" not in masks:
            return None
        rows, retraining = masks["val/row"][:], masks["row"][:]
        label, numbers = images["label"][:], range(params.validation_draws)
        own, theirs = label[rows], label[retraining]

        def drawn(stream: int, same_class: bool) -> NDArray[np.int32]:
            of = (own, theirs, params.seed)
            return np.stack([pairing.partners(*of, r, stream, same_class) for r in numbers])

        partners = {"combined": drawn(ANOTHER, same_class=False)}
        lacking = np.setdiff1d(own, theirs)
        if len(lacking):
            names = ", ".join(images.names["classes"][code] for code in lacking)
            log.warning("the retraining set has no %s, so the diagnosis has no dependence", names)
        else:
            partners["combined_same"] = drawn(SAME, same_class=True)
        cut = (len(rows), params.batch_size, params.seed)
        batch = np.stack([pairing.batches(*cut, r, BATCH) for r in numbers])
        views, fill = ("masked", "rest", *partners), _fills(masks["val/channel_mean"][:], batch)
        return cls("val/", views, rows, retraining, partners, batch, fill)

    @property
    def order(self) -> NDArray[np.int32] | None:
        """(R, M), the image at each place where views of the retraining set are kept; None: as they come."""
        return None if self.part else pairing.by_batch(self.batch)

    def write(self, artefact: Writer, split: str) -> None:
        """Write partners, batches, their order and fills into features.h5."""
        artefact.write(f"{split}/batch", self.batch)
        if (order := self.order) is not None:
            artefact.write(f"{split}/order", order)
        artefact.write(f"{split}/fill", self.fill)
        for view, partner in self.partners.items():
            artefact.write(PARTNERS[self.part, view], partner)
        if self.intervened is not None:
            artefact.write(f"{split}/intervened", self.intervened)


def _fills(channel_mean: NDArray[np.float32], batch: NDArray[np.int32]) -> NDArray[np.float32]:
    """The fills of R draws, (R, M, 3)."""
    return np.stack([pairing.fills(channel_mean, each) for each in batch])
