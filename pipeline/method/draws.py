"""All draws over the images of masks.h5: over the retraining set, and over the validation images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.method import pairing
from pipeline.params.features import FeaturesParams
from pipeline.store import Artefact, Writer

Views = tuple[str, ...]
TRAINING: Views = ("original", "masked", "combined")
# The originals are those of the whole split. The last two views have partners: of another, of the same class.
VALIDATION: Views = ("masked", "rest", "combined", "combined_same")
VALIDATION_STREAM = 1  # of the draws over validation images
SAME_CLASS_STREAM = 2  # of their partners of the same class
PARTNERS = {"combined": "partner", "combined_same": "partner_same"}  # where features.h5 has them


@dataclass(frozen=True)
class Draws:
    """All R draws over M images of masks.h5: the retraining set, or the validation images.

    Attributes:
        part: where these images are in masks.h5: "" or "val/".
        views: the views that are made of them.
        rows: (M,) rows of images.h5.
        position: (M,) their positions in train/ or val/ of features.h5.
        partners: (R, M) int32 by view, the partner, 0 … M − 1; none if there are no combined views.
        batch: (R, M) int32, the batch of the image.
        fill: (R, M, 3) float32 in [0, 1].
        intervened: (M,) bool, the images of the retraining set that are masked and combined; None if all are.
    """

    part: str
    views: Views
    rows: NDArray[np.int64]
    position: NDArray[np.int64]
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
        return cls("", TRAINING, rows, np.arange(len(rows)), partners, batch, fill, intervened)

    @classmethod
    def of_validation(
        cls, images: Artefact, masks: Artefact, split: NDArray[np.int64], params: FeaturesParams
    ) -> "Draws | None":
        """Draw over the validation images that have a mask; None if none has.

        If they have one label, none has a partner of another class, and there are no combined views.

        Args:
            split: the rows of the validation split.
        """
        if "val/row" not in masks:
            return None
        rows, count = masks["val/row"][:], params.validation_draws
        label = images["label"][:][rows]
        if len(np.unique(label)) > 1:
            views = VALIDATION
            draws = [
                pairing.draw(label, params.batch_size, params.seed, r, stream=VALIDATION_STREAM)
                for r in range(count)
            ]
            same = [pairing.same_class(label, params.seed, r, SAME_CLASS_STREAM) for r in range(count)]
            partners = {
                "combined": np.stack([draw.partner for draw in draws]),
                "combined_same": np.stack(same),
            }
            batch = np.stack([draw.batch for draw in draws])
        else:
            views, partners = tuple(view for view in VALIDATION if view not in PARTNERS), {}
            cut = (len(rows), params.batch_size, params.seed)
            batch = np.stack([pairing.batches(*cut, r, stream=VALIDATION_STREAM) for r in range(count)])
        position, fill = np.searchsorted(split, rows), _fills(masks["val/channel_mean"][:], batch)
        return cls("val/", views, rows, position, partners, batch, fill)

    def write(self, artefact: Writer, split: str) -> None:
        """Write partners, batches and fills into features.h5."""
        artefact.write(f"{split}/batch", self.batch)
        artefact.write(f"{split}/fill", self.fill)
        for view, partner in self.partners.items():
            artefact.write(f"{split}/{PARTNERS[view]}", self.position[partner].astype(np.int32))
        if self.intervened is not None:
            artefact.write(f"{split}/intervened", self.intervened)


def _fills(channel_mean: NDArray[np.float32], batch: NDArray[np.int32]) -> NDArray[np.float32]:
    """The fills of R draws, (R, M, 3)."""
    return np.stack([pairing.fills(channel_mean, each) for each in batch])
