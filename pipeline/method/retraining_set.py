"""The retraining set: which training images get a mask, and are used to retrain the last layer."""

import numpy as np
from numpy.typing import NDArray

from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.store import Artefact


def draw_rows(
    images: Artefact, rows: NDArray[np.int64], params: RetrainingSetParams, known_only: bool
) -> NDArray[np.int64]:
    """The rows of the retraining set, (M,) in rising order.

    Args:
        images: images.h5.
        rows: the rows of the training split.
        known_only: take only images whose true mask is known.

    Raises:
        MacError: `known_only`, and no training image has a true mask.
    """
    if known_only:
        known = with_foreground(images, rows)
        if not len(known):
            raise MacError(
                f"{images.path}: no training image has a true mask, so saliency.method cannot be foreground"
            )
        if len(known) < len(rows):
            counts = len(known), len(rows)
            log.info("true masks are known for %d of %d training images; the others are left out", *counts)
        rows = known
    drawn = _drawn(images, rows, params)
    if params.balance == "class":
        log.info("class-balanced retraining set: %d images", len(drawn))
    return drawn


def rows_to_draw(images: Artefact, rows: NDArray[np.int64], params: RetrainingSetParams) -> NDArray[np.int64]:
    """All rows that `draw_rows` gives, of known true masks only or not, in rising order."""
    whole, known = _drawn(images, rows, params), with_foreground(images, rows)
    return np.union1d(whole, _drawn(images, known, params)) if len(known) else whole


def _drawn(images: Artefact, rows: NDArray[np.int64], params: RetrainingSetParams) -> NDArray[np.int64]:
    return balanced(rows, images["label"][:][rows], params.seed) if params.balance == "class" else rows


def with_foreground(images: Artefact, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of images.h5, among `rows`, whose true mask is known."""
    if "has_foreground" not in images:
        return rows[:0]
    return np.asarray(rows[images["has_foreground"][:][rows]])


def balanced(rows: NDArray[np.int64], label: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The same number of rows of each class, that of the smallest class; in rising order.

    They are drawn without replacement. All rows of the smallest class are kept. Source: the retraining set of
    the paper on CelebA ("class-balanced data").

    Args:
        rows: (M,) rows of images.h5.
        label: (M,) their classes.
        seed: seed of the draw.
    """
    rng = np.random.default_rng(seed)
    members = [rows[label == c] for c in np.unique(label)]
    smallest = min(len(each) for each in members)
    drawn = [rng.choice(each, smallest, replace=False) for each in members]
    return np.sort(np.concatenate(drawn))
