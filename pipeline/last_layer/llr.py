"""Last-layer retraining on the originals only: MaC's solver with α = β = 0."""

from dataclasses import replace
from functools import partial
from typing import Literal

from pipeline.last_layer import mac
from pipeline.last_layer.method import Cached, Fitted, Method
from pipeline.last_layer.views import class_weights


def fit(cached: Cached, weights: Literal["none", "balanced"]) -> Fitted:
    """Retrain with the same weight for every row (`none`), or for every class (`balanced`)."""
    views = replace(cached.views, weight=class_weights(cached.views.label, cached.classes, weights))
    retrained = mac.fit(views, cached.validation, cached.erm, cached.params, [0.0], [0.0])
    return Fitted(retrained.heads, {})


METHOD = Method(
    "LLR", "last layer retrained on the originals", "validation, to choose", partial(fit, weights="none")
)
BALANCED = Method(
    "CB-LLR", "the same, classes weighing alike", "validation, to choose", partial(fit, weights="balanced")
)
