"""Was ERM stopped early? Its last layer is trained on. No group label and no test image is read.

An ERM that was stopped early flatters every method that fits its last layer anew, plain retraining first:
they finish its work. So here ERM's head is trained on, on the features of its own training images, towards
the minimum of

    Σ −w log p(y | φ) + λ/2 (‖W‖² + ‖b‖²)        λ = train.weight_decay; w = 1/n

by 50 steps of L-BFGS at most. This is not quite ERM's own loss. ERM saw random crops and flips of the images,
and batch normalisation used the batch's statistics; the features are of the images as they are. So a head
that has converged by its own loss can still gain a little by this one.

That the loss gets lower says little: it does so for nearly every ERM. What counts are the validation images
that only one of the two heads is right about.

The bounds in `early_stop` were set over four runs of ERM. In points: new head − ERM on validation; then plain
retraining − ERM on test, worst group and mean. To be found: the demo after 10 epochs (+3.8; +21, +6). Not to
be found: the demo at 98 % correlation after 15 epochs of one cycle (−3.2; −1, 0), one's own classifier on the
demo (+0.5; +1, +2), MobileNetV2 on Waterbirds (−1.9; +12, −2). They were then held against fifteen other runs
of the demo, with other numbers of epochs, sizes and paintings. Eleven are found (+2.5 to +10; +2 to +25, +4
to +13). Four are not: at 96 pixels after 30 epochs (+0.3; −1, +1; after 10 it is found), and of three other
paintings one that had converged (−1.7; −9, −2), one that nearly had (+1.5, p = .018; +9, +2), and one that
had not (+2.2, p = .015; +32, +9). So this misses some, and with few validation images more.
"""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import bdtrc, log_softmax

from pipeline.compute.threads import blas_limited
from pipeline.project import Opened
from pipeline.results.blocks import in_blocks
from pipeline.results.diagnosis import diagnose
from pipeline.splits import unseen_by_erm
from pipeline.store import FittedHeads

MOST_ROWS = 20_000  # training images; if there are more, so many of them are drawn
STEPS = 50  # of L-BFGS, at most
SEED = 0

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]  # features (n, D), classes (n,)


def whole_diagnosis(given: Opened) -> dict[str, Any]:
    """`diagnosis.diagnose`, with `convergence`; JSON-able.

    Args:
        given: images, erm, masks and features.

    Raises:
        MacError: as `diagnose` and `convergence`.
    """
    return {**diagnose(given), "convergence": convergence(given)}


def convergence(given: Opened) -> dict[str, Any] | None:
    """ERM's head and the one that is trained on, JSON-able.

    The images that `train.hold_out` kept from ERM are left out. If the retraining set has other shares of the
    classes than ERM's training images had, its images are weighted.

    Args:
        given: images, erm and features.

    Raises:
        MacError: model.json of erm does not state how it was trained.

    Returns:
        None if the retraining set has no image that ERM was trained on; else those of `compared`, and `own`:
        whether the classifier was trained elsewhere, so that its training images and λ may be others.
    """
    features, erm, label = given.file("features"), given.model("erm"), given.file("images")["label"][:]
    decay, hold_out, seed = (
        given.stated("erm", "train", key) for key in ("weight_decay", "hold_out", "seed")
    )
    rows = given.rows("train")
    seen = rows[~unseen_by_erm(label[rows], hold_out, seed)]
    used = _drawn(np.isin(features["train/row"][:], seen))
    if not used.any():
        return None
    training = _read(features["train/original"], used), features["train/label"][:][used]
    weight = _as_often(training[1], label[seen], len(given.groups.classes))
    validation = features["val/original"][:], features["val/label"][:]
    found = compared(erm.head(), training, weight, decay, validation)
    return {"own": "classifier" in erm.provenance.made_from, **found}


def compared(
    head: FittedHeads, training: Rows, weight: NDArray[np.float64], decay: float, validation: Rows
) -> dict[str, Any]:
    """A head (S = 1), and what becomes of it when it is trained on.

    It computes with one thread, so the numbers do not depend on how many there are.

    Args:
        weight: w, as in `trained_on`.
        decay: λ.

    Returns:
        `rows`: how many training images there are. `loss`, `lowest`: Σ −w log p on them, nats, of the head
        and of the one that is trained on. `images`: how many validation images there are. `right`, `later`:
        how many of them the two are right about. `p`: of `sign_test` for those that only one is right about.
    """
    x, truth = validation
    with blas_limited(1):
        after = trained_on(head, training, weight, decay)
        right, later = (each.logits(x)[0].argmax(-1) == truth for each in (head, after))
        loss, lowest = (_loss(each, training, weight) for each in (head, after))
    return {
        "rows": len(weight),
        "loss": loss,
        "lowest": lowest,
        "images": len(truth),
        "right": int(right.sum()),
        "later": int(later.sum()),
        "p": sign_test(int((later & ~right).sum()), int((right & ~later).sum())),
    }


def trained_on(head: FittedHeads, training: Rows, weight: NDArray[np.float64], decay: float) -> FittedHeads:
    """The head after L-BFGS on Σ −w log p + λ/2 (‖W‖² + ‖b‖²): at the minimum, or after 50 steps.

    Args:
        head: S = 1.
        weight: (n,), w, with the sum 1.
        decay: λ.
    """
    (x, label), shape = training, (head.weight.shape[1], head.weight.shape[2] + 1)
    rows = np.arange(len(label))

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The loss and its gradient. Features are multiplied in float32; losses are in float64."""
        both = flat.reshape(shape)
        log_p = log_softmax((x @ both[:, :-1].T.astype(np.float32)).astype(float) + both[:, -1], axis=1)
        loss = -(weight * log_p[rows, label]).sum() + decay / 2 * (both**2).sum()
        by_logits = np.exp(log_p)
        by_logits[rows, label] -= 1
        by_logits *= weight[:, None]
        slope = np.column_stack([by_logits.T.astype(np.float32) @ x, by_logits.sum(0)])
        return float(loss), (slope + decay * both).ravel()

    start = np.column_stack([head.weight[0], head.bias[0]]).astype(float)
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    both = found.x.reshape(shape).astype(np.float32)
    return FittedHeads(both[None, :, :-1], both[None, :, -1])


def sign_test(better: int, worse: int) -> float:
    """The probability of `better` heads or more in better + worse tosses of a coin (McNemar 1947, exact)."""
    return float(bdtrc(better - 1, better + worse, 0.5))


def _loss(head: FittedHeads, training: Rows, weight: NDArray[np.float64]) -> float:
    x, label = training
    log_p = log_softmax(head.logits(x)[0].astype(float), axis=1)
    return float(-(weight * log_p[np.arange(len(label)), label]).sum())


def _drawn(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows, (M,), or 20 000 of them."""
    places = np.flatnonzero(rows)
    if len(places) <= MOST_ROWS:
        return rows
    drawn = np.zeros_like(rows)
    drawn[np.random.default_rng(SEED).choice(places, MOST_ROWS, replace=False)] = True
    return drawn


def _read(features: h5py.Dataset, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Some rows of a dataset (M, D), and no others; `rows` is (M,)."""
    return np.concatenate([features[block] for block in in_blocks(np.flatnonzero(rows), features)])


def _as_often(label: NDArray[np.int64], of: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weights (n,) with the sum 1, so that each class has the share in `label` (n,) that it has in `of`."""
    had, has = (np.bincount(each, minlength=classes) for each in (of, label))
    weight = had[label] / has[label]
    return np.asarray(weight / weight.sum())
