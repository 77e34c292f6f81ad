"""Deep feature reweighting (Kirichenko, Izmailov & Wilson 2023): L1 logistic regression on subsets with as many rows of every group.

Features are standardised by the training set. C is chosen by the worst group on one half of validation, with coefficients averaged
over 10 balanced draws from the other half; the final ones are averaged over 20 draws from all of it. The variant on training
groups draws from the training set, and chooses on all of validation.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from pipeline.last_layer.baselines import Cached, Fitted, NotApplicableError
from pipeline.last_layer.heads import Heads, Scale

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C
DRAWS_TO_CHOOSE, DRAWS = 10, 20


class Rows(NamedTuple):
    """x (n, D) float64, standardised; label (n,); group (n,)."""

    x: NDArray[np.float64]
    label: NDArray[np.int64]
    group: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        return Rows(self.x[rows], self.label[rows], self.group[rows])


def fit(cached: Cached, split: Literal["training", "validation"]) -> Fitted:
    """Train on the groups of `split`.

    Raises:
        NotApplicableError: a group label that is needed is unknown, or a half of validation lacks a group that the other has.
    """
    if cached.validation.grouping.kind != "group" or (split == "training" and cached.group is None):
        raise NotApplicableError(f"needs the spurious attribute of every validation{' and training' if split == 'training' else ''} image")
    scale, validation = Scale.of(cached.views.original), cached.validation
    held_out = _rows(scale, validation.features, validation.label, validation.grouping.index)
    source = held_out
    if split == "training" and cached.group is not None:
        source = _rows(scale, cached.views.original, cached.views.label, cached.group.cpu().numpy())
    heads, chosen = [], []
    for seed in cached.seeds:
        rng = np.random.default_rng(seed)
        learn, judge = source, held_out
        if split == "validation":
            order = rng.permutation(len(held_out.label))
            half = len(order) // 2
            judge, learn = held_out.take(order[:half]), held_out.take(order[half:])
        draws = [balanced(learn.group, rng) for _ in range(DRAWS_TO_CHOOSE)]
        strength = max(STRENGTHS, key=lambda c: worst(judge, *averaged(learn, draws, c, cached.classes)))
        final = [balanced(source.group, rng) for _ in range(DRAWS)]
        weight, bias = averaged(source, final, strength, cached.classes)
        heads.append(scale.out_of(Heads.of(weight.astype(np.float32), bias.astype(np.float32)).to(scale.mean.device)))
        chosen.append(strength)
    return Fitted(Heads(torch.cat([h.weight for h in heads]), torch.cat([h.bias for h in heads])), {"C": chosen})


def _rows(scale: Scale, features: Tensor, label: Tensor, group: NDArray[np.int64]) -> Rows:
    x = (features - scale.mean) / scale.deviation
    return Rows(x.cpu().numpy().astype(np.float64), label.cpu().numpy(), group)


def balanced(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows with as many of each group as the smallest has, drawn without replacement; groups without rows are left out."""
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    return np.concatenate([rng.choice(m, min(map(len, members)), replace=False) for m in members])


def averaged(rows: Rows, draws: list[NDArray[np.int64]], strength: float, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients (C, D) and intercepts (C,) of L1 logistic regression, averaged over the draws."""
    fitted = [_coefficients(rows.take(draw), strength, classes) for draw in draws]
    weight, bias = (np.mean(parts, axis=0) for parts in zip(*fitted, strict=True))
    return weight, bias


def _coefficients(rows: Rows, strength: float, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    regression = LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=0)
    if len(np.unique(rows.label)) < classes:
        raise NotApplicableError("a part of the validation split has no image of some class")
    if classes == 2:  # one decision value: of the second class against none of the first
        one = regression.fit(rows.x, rows.label)
        return np.concatenate([np.zeros_like(one.coef_), one.coef_]), np.concatenate([[0.0], one.intercept_])
    each = OneVsRestClassifier(regression).fit(rows.x, rows.label).estimators_
    return np.concatenate([e.coef_ for e in each]), np.concatenate([e.intercept_ for e in each])


def worst(rows: Rows, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> float:
    """Worst-group accuracy over the groups that have rows."""
    correct = (rows.x @ weight.T + bias).argmax(1) == rows.label
    return min(float(correct[rows.group == g].mean()) for g in np.unique(rows.group))
