"""Masking and combining in the last layer (paper equation 6).

With α = β = 0, this is plain last-layer retraining.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MacError
from pipeline.last_layer.adam import NotFiniteError, Weigh, fit_adam, mean_of_batch
from pipeline.last_layer.best_so_far import BestSoFar
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.lbfgs import Elsewhere, fit_lbfgs
from pipeline.last_layer.scale import Scale
from pipeline.last_layer.views import Views
from pipeline.params.fit import FitParams
from pipeline.setting import Setting

History = list[dict[str, object]]


@dataclass(frozen=True)
class Retrained:
    """Fitted heads, for raw features.

    Attributes:
        heads: (S, K, …), each the mean of `average` fits at their best epochs.
        epoch: (S · average, K) int64, from 1; the best epoch of each fit.
        history: the rows of history.csv, one for each epoch and fit of the first setting, with its seed.
    """

    heads: Heads
    epoch: Tensor
    history: History


def fit(
    views: Views,
    validation: HeldOutSplit,
    start: Heads,
    params: FitParams,
    settings: Sequence[Setting],
    weigh: Weigh = mean_of_batch,
    elsewhere: Elsewhere | None = None,
) -> Retrained:
    """Fit a head for every seed of `params.head_seeds` and every setting at once.

    `adam`: each fit is kept at its best epoch on the validation split, by its criterion. Head s is the mean
    of `params.average` fits, with the seeds s · average, s · average + 1, …. `lbfgs`: each head is at the
    minimum of the loss.

    Args:
        start: the ERM head for raw features, (1, 1, …).
        params: its l2 is that of settings that have none.
        weigh: how much each row of a batch counts (`adam` only).
        elsewhere: computes the partial sums elsewhere, on the views that `prepared` gives (`lbfgs` only).

    Raises:
        MacError: the loss, or a head, is not finite.
    """
    views, scale = prepared(views, params)
    if scale:
        start = scale.into(start)
    if params.init == "zeros":
        start = Heads(torch.zeros_like(start.weight), torch.zeros_like(start.bias))
    if params.solver == "lbfgs":
        retrained = _solved(views, validation, start.bias.shape[-1], params, settings, scale, elsewhere)
    else:
        retrained = _best_epochs(views, validation, start, params, settings, scale, weigh)
    if not retrained.heads.finite().all():  # the last step may do it, which no loss shows
        raise MacError(
            "retrain: a head is NaN or infinite after its fit; lower retrain.lr or raise retrain.l2"
        )
    return retrained


def prepared(views: Views, params: FitParams) -> tuple[Views, Scale | None]:
    """The views that are fitted on, and how they are standardised."""
    if not params.standardize:
        return views, None
    scale = Scale.of(views.originals())
    return scale.views(views), scale


def as_it_is(validation: HeldOutSplit, erm: Heads) -> Retrained:
    """The ERM head (1, 1, …) without any fit: epoch 0, and no loss (NaN) in its one row of the history."""
    history: History = []
    _record(history, validation, 0, [0], validation.correct(erm), torch.full((1, 1), math.nan))
    return Retrained(erm, torch.zeros(1, 1, dtype=torch.int64), history)


def _solved(
    views: Views,
    validation: HeldOutSplit,
    classes: int,
    params: FitParams,
    settings: Sequence[Setting],
    scale: Scale | None,
    elsewhere: Elsewhere | None,
) -> Retrained:
    """By L-BFGS, one setting after another."""
    fitted, losses = [], []
    for setting in settings:
        l2 = setting.strength(params.l2)
        head, loss = fit_lbfgs(views, setting.alpha, setting.beta, classes, l2, elsewhere)
        if not math.isfinite(loss):
            raise MacError(f"retrain: the loss is {loss} at the end of L-BFGS; raise retrain.l2")
        fitted.append(head)
        losses.append(loss)
    heads = _raw(Heads.joined(fitted, axis=1), scale)
    history: History = []
    _record(history, validation, 1, params.head_seeds, validation.correct(heads), torch.tensor([losses]))
    return Retrained(heads, torch.ones(1, len(settings), dtype=torch.int64), history)


def _best_epochs(
    views: Views,
    validation: HeldOutSplit,
    start: Heads,
    params: FitParams,
    settings: Sequence[Setting],
    scale: Scale | None,
    weigh: Weigh,
) -> Retrained:
    """By Adam, each fit at its best epoch."""
    seeds = range(len(params.head_seeds) * params.average)
    best, history = BestSoFar(validation), History()

    def after_epoch(epoch: int, heads: Heads, loss: Tensor) -> None:
        correct = best.offer(epoch + 1, _raw(heads, scale))
        _record(history, validation, epoch + 1, seeds, correct, loss)

    try:
        fit_adam(views, settings, seeds, start, params, after_epoch, weigh)
    except NotFiniteError as error:
        raise MacError(f"retrain: {error}; lower retrain.lr") from None
    return Retrained(best.heads.averaged(params.average), best.epoch, history)


def _raw(heads: Heads, scale: Scale | None) -> Heads:
    """The heads, for raw features."""
    return scale.out_of(heads) if scale else heads


def _record(
    history: History,
    validation: HeldOutSplit,
    epoch: int,
    seeds: Sequence[int],
    correct: NDArray[np.bool_],
    loss: Tensor,
) -> None:
    """Add a row for each fit of the first setting: `val_worst` and `val_mean` are the criterion's.

    Args:
        correct: (S, K, n), where each head is right on the validation split.
        loss: (S, K), mean training loss of the epoch.
    """
    first, grouping, criterion = correct[:, 0], validation.grouping, validation.criterion
    accuracy = grouping.accuracy(first)  # (S, names)
    worst, mean = criterion.scores(criterion.accuracy(first))
    for s, seed in enumerate(seeds):
        row: dict[str, object] = {
            "epoch": epoch,
            "seed": seed,
            "loss": loss[s, 0].item(),
            "val_worst": worst[s].item(),
            "val_mean": mean[s].item(),
        }
        for name, value in zip(grouping.names, accuracy[s].tolist(), strict=True):
            row[f"val_{name}"] = value
        history.append(row)
