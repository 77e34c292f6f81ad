"""Deep feature reweighting (Kirichenko, Izmailov & Wilson 2023): L1 logistic regression on balanced subsets.

A subset has the same number of rows of every group. Features are standardised with the statistics of the
retraining set. For each C, coefficients are averaged over 10 subsets of one half of the validation split; the
C with the best worst group on the other half is chosen. The final coefficients are averaged over 20 subsets
of the whole split. The variant on training groups takes its subsets from the retraining set, and chooses C on
the whole validation split.
"""

from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.scale import Scale
from pipeline.store import FittedHeads

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C
SUBSETS_TO_CHOOSE, SUBSETS = 10, 20

Coefficients = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight (C, D), bias (C,)


class Rows(NamedTuple):
    """Rows to fit on, or to measure on.

    Attributes:
        x: (n, D) float64, standardised features.
        label: (n,) int64.
        group: (n,) int64.
    """

    x: NDArray[np.float64]
    label: NDArray[np.int64]
    group: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of the rows."""
        return Rows(self.x[rows], self.label[rows], self.group[rows])


def fit(cached: Cached, split: Literal["training", "validation"]) -> Fitted:
    """Fit a head for each seed, on the groups of `split`.

    Raises:
        NotApplicableError: a required group label is unknown, or the rows to fit on lack a class.
    """
    _require_groups(cached, split)
    scale = Scale.of(cached.views.original)
    of_validation = rows_of_validation(cached, scale)
    source = of_validation
    if split == "training" and cached.group is not None:
        source = _rows(scale, cached.views.original, cached.views.label, cached.group.cpu().numpy())
    heads, chosen = [], []
    for seed in range(cached.params.seeds):
        rng = np.random.default_rng(seed)
        learn, judge = source, of_validation
        if split == "validation":
            judge, learn = _halves(of_validation, rng)
        strength = _best_strength(learn, judge, rng, cached.classes)
        subsets = [balanced(source.group, rng) for _ in range(SUBSETS)]
        weight, bias = averaged(source, subsets, strength, cached.classes)
        standardised = FittedHeads(weight[None].astype(np.float32), bias[None].astype(np.float32))
        heads.append(scale.out_of(Heads.of(standardised).to(scale.mean.device)))
        chosen.append(strength)
    return Fitted(Heads.joined(heads, axis=0), {"C": chosen})


def _require_groups(cached: Cached, split: Literal["training", "validation"]) -> None:
    unknown = cached.validation.grouping.kind != "group"
    if split == "validation" and unknown:
        raise NotApplicableError("needs the spurious attribute of every validation image")
    if split == "training" and (unknown or cached.group is None):
        raise NotApplicableError("needs the spurious attribute of every validation and training image")


def rows_of_validation(cached: Cached, scale: Scale) -> Rows:
    """All rows of the validation split."""
    validation = cached.validation
    return _rows(scale, validation.features, validation.label, validation.grouping.index)


def _rows(scale: Scale, features: Tensor, label: Tensor, group: NDArray[np.int64]) -> Rows:
    x = (features - scale.mean) / scale.deviation
    return Rows(x.cpu().numpy().astype(np.float64), label.cpu().numpy(), group)


def _halves(rows: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Two random halves; if the number of rows is odd, the second has one more."""
    order = rng.permutation(len(rows.label))
    half = len(order) // 2
    return rows.take(order[:half]), rows.take(order[half:])


def _best_strength(learn: Rows, judge: Rows, rng: np.random.Generator, classes: int) -> float:
    """The C of STRENGTHS with the best worst group on `judge`; if several are equal, the first."""
    subsets = [balanced(learn.group, rng) for _ in range(SUBSETS_TO_CHOOSE)]
    found = []
    for strength in STRENGTHS:
        weight, bias = averaged(learn, subsets, strength, classes)
        found.append(worst(judge, weight, bias))
    return STRENGTHS[found.index(max(found))]


def balanced(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a subset without replacement, with the same number of rows of each group: that of the smallest.

    Groups without rows are left out.
    """
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    smallest = min(map(len, members))
    return np.concatenate([rng.choice(rows, smallest, replace=False) for rows in members])


def averaged(rows: Rows, subsets: list[NDArray[np.int64]], strength: float, classes: int) -> Coefficients:
    """Coefficients (C, D) and intercepts (C,) of L1 logistic regression, averaged over the subsets."""
    fitted = [_coefficients(rows.take(subset), strength, classes) for subset in subsets]
    weight = np.mean([each for each, _ in fitted], axis=0)
    return weight, np.mean([each for _, each in fitted], axis=0)


def _coefficients(rows: Rows, strength: float, classes: int) -> Coefficients:
    if len(np.unique(rows.label)) < classes:
        raise NotApplicableError("a part of the validation split has no image of some class")
    regression = LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=0)
    if classes == 2:  # scikit-learn has one score, for the second class; the first gets 0
        one = regression.fit(rows.x, rows.label)
        return np.concatenate([np.zeros_like(one.coef_), one.coef_]), np.concatenate([[0.0], one.intercept_])
    each = OneVsRestClassifier(regression).fit(rows.x, rows.label).estimators_
    return np.concatenate([e.coef_ for e in each]), np.concatenate([e.intercept_ for e in each])


def worst(rows: Rows, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> float:
    """Worst-group accuracy over the groups that have rows."""
    correct = (rows.x @ weight.T + bias).argmax(1) == rows.label
    return min(float(correct[rows.group == g].mean()) for g in np.unique(rows.group))


METHOD = Method("DFR", "Kirichenko et al. 2023", "validation, to train", partial(fit, split="validation"))
TRAINING_GROUPS = Method(
    "DFR (training groups)", "Kirichenko et al. 2023", "training, to train", partial(fit, split="training")
)
