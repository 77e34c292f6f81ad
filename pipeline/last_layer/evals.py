"""EVaLS (Ghaznavi et al. 2024): L1 logistic regression on the rows that ERM finds hardest and easiest.

Of each class, the k rows with the highest and the k rows with the lowest loss of ERM are taken. Rows of a
minority group have high losses, so this set is balanced without group labels. Features are standardised with
the statistics of the retraining set. The validation split chooses k and C.

The rows are those that ERM was not trained on (`train.hold_out`), as in the paper.

There are up to 42 settings, and each is fitted once for every class: for many classes, that is too much.
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.last_layer import logistic
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.logistic import STRENGTHS
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.scale import Scale
from pipeline.last_layer.views import numbers
from pipeline.metrics import prefer

SIZES = (5, 10, 20, 50, 100, 200)  # k, ours
CLASSES = 20  # at most


def fit(cached: Cached) -> Fitted:
    """One head: nothing is random.

    Raises:
        NotApplicableError: a class has fewer than two rows, or there are more than 20 classes.
    """
    if cached.classes > CLASSES:
        raise NotApplicableError(
            f"fits {len(SIZES) * len(STRENGTHS)} settings for every class, so it takes at most {CLASSES} "
            f"classes, and here are {cached.classes}"
        )
    rows, note = cached.held_out()
    views, target = cached.views, cached.views.label[rows]
    logits = views.logits(cached.erm, rows)[0, 0]
    loss = F.cross_entropy(logits, target, reduction="none").cpu().numpy()
    scale, label, row = Scale.of(views.originals()), target.cpu().numpy(), numbers(rows)
    found = sizes(label, cached.classes)
    fitted = []
    for k in found:
        chosen = hardest_and_easiest(loss, label, k)
        x = logistic.standardised(views.take(row[torch.from_numpy(chosen).to(row.device)]), scale)
        for strength in STRENGTHS:
            coefficients = logistic.regression(x, label[chosen], cached.classes, strength, "l1")
            fitted.append(logistic.head(coefficients, scale))
    heads = Heads.joined(fitted, axis=1)
    worst, mean = cached.validation.scores(heads)
    best = prefer(worst[0], mean[0])
    k, strength = list(product(found, STRENGTHS))[best]
    return Fitted(heads.of_setting(best), {"k": k, "C": strength}, note)


def sizes(label: NDArray[np.int64], classes: int) -> list[int]:
    """The k of SIZES that leave no row among both the hardest and the easiest; the largest such k, if none.

    Raises:
        NotApplicableError: a class has fewer than two rows.
    """
    most = int(np.bincount(label, minlength=classes).min()) // 2
    if not most:
        raise NotApplicableError("needs two images of every class among those that it learns from")
    return [k for k in SIZES if k <= most] or [most]


def hardest_and_easiest(loss: NDArray[np.floating], label: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k rows of each class with the lowest and the k with the highest loss, of (n,); ties in order."""
    found = []
    for c in np.unique(label):
        rows = np.flatnonzero(label == c)
        ordered = rows[loss[rows].argsort(kind="stable")]
        found += [ordered[:k], ordered[-k:]]
    return np.concatenate(found)


METHOD = Method("EVaLS", "Ghaznavi et al. 2024", "validation, to choose", fit)
