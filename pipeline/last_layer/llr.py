"""Last-layer retraining on the originals only: MaC's solver with α = β = 0."""

from dataclasses import replace
from functools import partial
from typing import Literal

from torch import Tensor

from pipeline.last_layer import mac
from pipeline.last_layer.adam import Weigh, mean_of_batch
from pipeline.last_layer.method import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.views import class_weights
from pipeline.metrics import prefer
from pipeline.setting import Setting


def fit(cached: Cached, weights: Literal["none", "balanced"]) -> Fitted:
    """Retrain with the same weight for every row (`none`), or for every class (`balanced`)."""
    return _retrained(cached, class_weights(cached.views.label, weights))


def fit_groups(cached: Cached) -> Fitted:
    """Retrain with the same total weight for every training group that has rows.

    Raises:
        NotApplicableError: the group of a training image is unknown.
    """
    if cached.group is None:
        raise NotApplicableError("needs the spurious attribute of every training image")
    return _retrained(cached, class_weights(cached.group, "balanced"))


def _retrained(cached: Cached, weight: Tensor) -> Fitted:
    """MaC's fit without interventions, with row weights (M,)."""
    return without_interventions(replace(cached, views=replace(cached.views, weight=weight)))


def without_interventions(cached: Cached, weigh: Weigh = mean_of_batch) -> Fitted:
    """MaC's fit with α = β = 0. If l2 is auto, it is the best of `cached.l2s` on the validation split."""
    settings = [Setting(0.0, 0.0, l2) for l2 in cached.l2s]
    views, validation, erm, params = cached.views, cached.validation, cached.erm, cached.params
    heads = mac.fit(views, validation, erm, params, settings, weigh).heads
    worst, mean = validation.scores(heads)
    best = prefer(worst.mean(0), mean.mean(0))
    chosen: dict[str, object] = {"l2": cached.l2s[best]} if params.l2 == "auto" else {}
    return Fitted(heads.of_setting(best), chosen)


METHOD = Method(
    "LLR", "last layer retrained on the originals", "validation, to choose", partial(fit, weights="none")
)
BALANCED = Method(
    "CB-LLR", "the same, classes weighing alike", "validation, to choose", partial(fit, weights="balanced")
)
GROUPS = Method(
    "LLR (training groups)", "the same, training groups weighing alike", "training, to train", fit_groups
)
