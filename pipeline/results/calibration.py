"""Temperature scaling (Guo et al. 2017): one number T divides a head's logits, so that its probabilities fit.

T minimises the negative log-likelihood (NLL) of the validation images. It changes no answer, and no order of
the images by the log-odds of two classes, so accuracy and AUROC stay as they are. It reads no group labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from pipeline.errors import MacError
from pipeline.project import Opened
from pipeline.results.scores import quality
from pipeline.store import FittedHeads

LOWEST, HIGHEST = 0.01, 100.0
# What ended the search for T, if it is not the minimum: every validation image is right, or a bound.
Limit = Literal["none", "all right", "bound"]
Logits = NDArray[np.float64]  # (N, C)


@dataclass(frozen=True)
class Fit:
    """How well probabilities fit the classes of some images.

    Attributes:
        ece: expected calibration error, in [0, 1] (`scores.quality`).
        nll: mean −log p of the class, nats.
    """

    ece: float
    nll: float


@dataclass(frozen=True)
class Calibration:
    """A head's temperature, and what it does on the test split.

    Attributes:
        temperature: T.
        limit: what ended the search for T.
        before, after: on the test split, without T and with it.
    """

    temperature: float
    limit: Limit
    before: Fit
    after: Fit


def calibrate(given: Opened, head: FittedHeads) -> Calibration:
    """Find the temperature of one head (S = 1) on the validation split, and measure it on the test split.

    Args:
        given: features.

    Raises:
        MacError: the validation images are all of one class, or none.
    """
    features = given.file("features")
    val, test = (head.logits(features[f"{split}/original"][:])[0].astype(float) for split in ("val", "test"))
    label, truth = features["val/label"][:], features["test/label"][:]
    if len(np.unique(label)) < 2:
        raise MacError(
            f"{features.path}: the validation split has images of one class only, or none; a temperature "
            "needs two; add some to the dataset, or export without calibration"
        )
    found, limit = temperature(val, label)
    return Calibration(found, limit, fit(test, truth), fit(test / found, truth))


def scaled(head: FittedHeads, by: float) -> FittedHeads:
    """The heads with their logits divided by T: weight and bias are."""
    return FittedHeads(*((part.astype(float) / by).astype(np.float32) for part in (head.weight, head.bias)))


def temperature(logits: Logits, label: NDArray[np.int64]) -> tuple[float, Limit]:
    """The T > 0 with the lowest NLL of softmax(logits / T), from 0.01 to 100, and what ended the search.

    The NLL is convex in 1/T, so its slope has one root at most. If every image is right, there is none: the
    NLL falls with T down to 0. n images do not show so much. T is then such that the mean confidence is
    (n + 1) / (n + 2), by Laplace's rule of succession.

    Args:
        logits: (n, C); two classes or more have images.
        label: (n,).
    """
    own = logits[np.arange(len(label)), label]

    def slope(log_inverse: float) -> float:
        """∂NLL/∂(1/T), of log 1/T: the mean of Σ p z − z_y."""
        probability = softmax(logits * np.exp(log_inverse), axis=1)
        return float(((probability * logits).sum(1) - own).mean())

    def surplus(log_inverse: float) -> float:
        confidence = softmax(logits * np.exp(log_inverse), axis=1).max(1)
        return float(confidence.mean()) - (len(label) + 1) / (len(label) + 2)

    if (own == logits.max(1)).all():
        return _root(surplus)[0], "all right"
    return _root(slope)


def _root(rising: Callable[[float], float]) -> tuple[float, Limit]:
    """T at the root of a function of log 1/T that rises, or at a bound."""
    low, high = -np.log(HIGHEST), -np.log(LOWEST)
    if rising(low) >= 0:
        return HIGHEST, "bound"
    if rising(high) <= 0:
        return LOWEST, "bound"
    return float(np.exp(-brentq(rising, low, high))), "none"


def fit(logits: Logits, label: NDArray[np.int64]) -> Fit:
    """How well softmax(logits), (n, C), fits the classes (n,)."""
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(label)), label]
    return Fit(quality(logits, label)["ece"], float(loss.mean()))
