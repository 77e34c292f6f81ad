"""Deep feature reweighting (Kirichenko, Izmailov & Wilson 2023): logistic regression on balanced subsets.

A subset has the same number of rows of every group. Features are standardised with the statistics of the
retraining set. For each C, coefficients are averaged over 10 subsets of one half of the validation split; the
C with the best worst group on the other half is chosen. The final coefficients are averaged over 20 subsets
of the whole split. The authors' penalty is L1. One variant has L2, and tries fewer C, because its fits take
longer. The variant on training groups takes its subsets from the retraining set, and chooses C on the whole
validation split.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.last_layer import logistic
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.logistic import STRENGTHS, Coefficients, Penalty
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.scale import Scale
from pipeline.last_layer.views import Views

CHOICES: dict[Penalty, tuple[float, ...]] = {"l1": STRENGTHS, "l2": (1.0, 0.1, 0.01)}  # C
SUBSETS_TO_CHOOSE, SUBSETS = 10, 20


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


@dataclass(frozen=True)
class RetrainingSet:
    """The retraining set, of which no more is read than is fitted on.

    Attributes:
        group: (M,) int64.
    """

    views: Views
    scale: Scale
    group: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Some of the rows."""
        row = torch.from_numpy(rows).to(self.views.label.device)
        x = logistic.standardised(self.views.take(row), self.scale)
        return Rows(x, self.views.label[row].cpu().numpy(), self.group[rows])


def fit(cached: Cached, split: Literal["training", "validation"], penalty: Penalty = "l1") -> Fitted:
    """Fit a head for each seed, on the groups of `split`.

    Raises:
        NotApplicableError: a required group label is unknown, or the rows to fit on lack a class.
    """
    _require_groups(cached, split)
    scale = Scale.of(cached.views.originals())
    of_validation = rows_of_validation(cached, scale)
    source: Rows | RetrainingSet = of_validation
    if split == "training" and cached.group is not None:
        source = RetrainingSet(cached.views, scale, cached.group.cpu().numpy())
    heads, chosen = [], []
    for seed in range(cached.params.seeds):
        rng = np.random.default_rng(seed)
        learn, judge = source, of_validation
        if split == "validation":
            judge, learn = _halves(of_validation, rng)
        strength = _best_strength(learn, judge, rng, cached.classes, penalty)
        subsets = [balanced(source.group, rng) for _ in range(SUBSETS)]
        heads.append(logistic.head(averaged(source, subsets, strength, cached.classes, penalty), scale))
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
    x = logistic.standardised(validation.features, scale)
    return Rows(x, validation.label.cpu().numpy(), validation.grouping.index)


def _halves(rows: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Two random halves; if the number of rows is odd, the second has one more."""
    order = rng.permutation(len(rows.label))
    half = len(order) // 2
    return rows.take(order[:half]), rows.take(order[half:])


def _best_strength(
    learn: Rows | RetrainingSet, judge: Rows, rng: np.random.Generator, classes: int, penalty: Penalty
) -> float:
    """The C of CHOICES with the best worst group on `judge`; if several are equal, the first."""
    subsets = [balanced(learn.group, rng) for _ in range(SUBSETS_TO_CHOOSE)]
    found = []
    for strength in CHOICES[penalty]:
        weight, bias = averaged(learn, subsets, strength, classes, penalty)
        found.append(worst(judge, weight, bias))
    return CHOICES[penalty][found.index(max(found))]


def balanced(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a subset without replacement, with the same number of rows of each group: that of the smallest.

    Groups without rows are left out.
    """
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    smallest = min(map(len, members))
    return np.concatenate([rng.choice(rows, smallest, replace=False) for rows in members])


def averaged(
    rows: Rows | RetrainingSet,
    subsets: list[NDArray[np.int64]],
    strength: float,
    classes: int,
    penalty: Penalty = "l1",
) -> Coefficients:
    """Coefficients (C, D) and intercepts (C,) of logistic regression, averaged over the subsets."""
    fitted = [_coefficients(rows.take(subset), strength, classes, penalty) for subset in subsets]
    weight = np.mean([each for each, _ in fitted], axis=0)
    return weight, np.mean([each for _, each in fitted], axis=0)


def _coefficients(rows: Rows, strength: float, classes: int, penalty: Penalty) -> Coefficients:
    if len(np.unique(rows.label)) < classes:
        raise NotApplicableError("a part of the validation split has no image of some class")
    return logistic.regression(rows.x, rows.label, classes, strength, penalty)


def worst(rows: Rows, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> float:
    """Worst-group accuracy over the groups that have rows."""
    correct = (rows.x @ weight.T + bias).argmax(1) == rows.label
    return min(float(correct[rows.group == g].mean()) for g in np.unique(rows.group))


METHOD = Method("DFR", "Kirichenko et al. 2023", "validation, to train", partial(fit, split="validation"))
L2 = Method(
    "DFR (L2)",
    "DFR with an L2 penalty",
    "validation, to train",
    partial(fit, split="validation", penalty="l2"),
)
TRAINING_GROUPS = Method(
    "DFR (training groups)", "Kirichenko et al. 2023", "training, to train", partial(fit, split="training")
)
