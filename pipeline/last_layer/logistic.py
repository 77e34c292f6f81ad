"""Logistic regression on standardised features, by scikit-learn: for the methods that fit on few rows."""

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import ThreadpoolController
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import NotApplicableError
from pipeline.last_layer.scale import Scale
from pipeline.store import FittedHeads

Penalty = Literal["l1", "l2"]
Coefficients = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight (C, D), bias (C,)

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C, as Kirichenko et al. have it; low is a strong penalty
_SOLVERS: dict[Penalty, dict[str, Any]] = {
    "l1": {"l1_ratio": 1.0, "solver": "liblinear", "random_state": 0},
    "l2": {"l1_ratio": 0.0, "solver": "lbfgs", "max_iter": 1000},
}


def standardised(features: Tensor, scale: Scale) -> NDArray[np.float64]:
    """Raw features (n, D) to standardised ones, float64.

    Raises:
        NotApplicableError: they overflow.
    """
    found = scale(features).cpu().numpy().astype(np.float64)
    if not np.isfinite(found).all():
        raise NotApplicableError("the features are too large to be standardised")
    return found


def regression(
    x: NDArray[np.floating], label: NDArray[np.int64], classes: int, strength: float, penalty: Penalty
) -> Coefficients:
    """Fit logistic regression; with more than two classes, each class against the rest.

    It computes with one thread: with two, hundreds of such small fits took 25 times as long. And so the
    result does not depend on the number of threads.

    Args:
        x: (n, D), standardised features.
        label: (n,); every class has rows.
        strength: scikit-learn's C.
    """
    model = LogisticRegression(C=strength, **_SOLVERS[penalty])
    if penalty == "l2":
        x = x.astype(np.float32)  # twice as fast; liblinear would compute in float64 anyway
    with _thread_pools().limit(limits=1):
        each = OneVsRestClassifier(model).fit(x, label).estimators_ if classes > 2 else [model.fit(x, label)]
    if classes == 2:  # scikit-learn has one score, for the second class; the first gets 0
        (one,) = each
        return np.concatenate([np.zeros_like(one.coef_), one.coef_]), np.concatenate([[0.0], one.intercept_])
    return np.concatenate([e.coef_ for e in each]), np.concatenate([e.intercept_ for e in each])


@cache
def _thread_pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded, scikit-learn's among them."""
    return ThreadpoolController()


def head(coefficients: Coefficients, scale: Scale) -> Heads:
    """Coefficients for standardised features to a head for raw features, (1, 1, …)."""
    weight, bias = (part[None].astype(np.float32) for part in coefficients)
    return scale.out_of(Heads.of(FittedHeads(weight, bias)).to(scale.mean.device))
