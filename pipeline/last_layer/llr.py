"""Last-layer retraining on the originals only: MaC's solver with α = β = 0."""

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pipeline.last_layer import mac
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.views import class_weights


def fit(cached: Cached, weights: Literal["none", "balanced"]) -> Fitted:
    """Retrain with the same weight for every row (`none`), or for every class (`balanced`)."""
    return _retrained(cached, class_weights(cached.views.label, cached.classes, weights))


def fit_groups(cached: Cached) -> Fitted:
    """Retrain with the same total weight for every training group that has rows.

    Raises:
        NotApplicableError: the group of a training image is unknown.
    """
    if cached.group is None:
        raise NotApplicableError("needs the spurious attribute of every training image")
    present, group = torch.unique(cached.group, return_inverse=True)
    return _retrained(cached, class_weights(group, len(present), "balanced"))


def _retrained(cached: Cached, weight: Tensor) -> Fitted:
    """MaC's fit without interventions, with row weights (M,)."""
    views = replace(cached.views, weight=weight)
    retrained = mac.fit(views, cached.validation, cached.erm, cached.params, [0.0], [0.0])
    return Fitted(retrained.heads, {})


METHOD = Method(
    "LLR", "last layer retrained on the originals", "validation, to choose", partial(fit, weights="none")
)
BALANCED = Method(
    "CB-LLR", "the same, classes weighing alike", "validation, to choose", partial(fit, weights="balanced")
)
GROUPS = Method(
    "LLR (training groups)", "the same, training groups weighing alike", "training, to train", fit_groups
)
