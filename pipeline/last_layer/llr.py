"""Last-layer retraining on the originals alone, with the solver of MaC: its α = β = 0."""

from dataclasses import replace
from typing import Literal

from pipeline.last_layer import mac
from pipeline.last_layer.baselines import Cached, Fitted
from pipeline.last_layer.heads import class_weights


def fit(cached: Cached, weights: Literal["none", "balanced"]) -> Fitted:
    """Retrain on every row alike, or on every class alike (`balanced`)."""
    views = replace(cached.views, weight=class_weights(cached.views.label, cached.classes, weights))
    seeds = cached.seeds if cached.params.solver == "adam" else [0]
    return Fitted(mac.fit(views, cached.validation, cached.erm, cached.params, [0.0], [0.0], seeds).heads, {})
