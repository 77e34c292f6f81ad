"""Masking and combining in the last layer (paper equation 6); with α = β = 0 it is plain last-layer retraining."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import MacError
from pipeline.last_layer import heads
from pipeline.last_layer.heads import Adam, Heads, Scale, Views
from pipeline.last_layer.validation import BestSoFar, Validation
from pipeline.metrics import Accuracy
from pipeline.params import RetrainParams
from pipeline.store import Artefact


@dataclass
class Fit:
    """Fitted heads, on raw features.

    Attributes:
        heads: (S, K, …), each the mean of `average` fits at their best epochs.
        epoch: (S · average, K) int64, from 1; the epoch kept of each fit.
        history: a row an epoch and fit (of the first setting), for history.csv; `seed` is the fit's.
    """

    heads: Heads
    epoch: Tensor
    history: list[dict[str, object]]


def load_views(features: Artefact, params: RetrainParams, on: torch.device, interventions: bool = True) -> Views:
    """The retraining set of features.h5 on the device, with or without the masked and combined views."""
    label = torch.from_numpy(features["train/label"][:]).to(on)
    draws, rows, width = features["train/masked"].shape
    table = np.empty((1 + 2 * draws if interventions else 1, rows, width), np.float32)
    features["train/original"].read_direct(table[0])
    if interventions:
        features["train/masked"].read_direct(table[1 : 1 + draws])
        features["train/combined"].read_direct(table[1 + draws :])
    return Views(
        table=torch.from_numpy(table).flatten(0, 1).to(on),
        label=label,
        batch=torch.from_numpy(features["train/batch"][:]).long().to(on),
        weight=heads.class_weights(label, len(features.attribute("classes")), params.class_weights),
    )


def fit(
    views: Views,
    validation: Validation,
    start: Heads,
    params: RetrainParams,
    alphas: list[float],
    betas: list[float],
    seeds: list[int],
    weigh: heads.Weigh = heads.mean_of_batch,
) -> Fit:
    """Fit a head for every seed and every setting (alphas[k], betas[k]) at once.

    With `adam`, each fit is kept at the epoch with the best validation worst-group (or worst-class) accuracy (ties: higher mean, then
    earlier), and head s is the mean of the fits with the seeds s · average … s · average + average − 1; `lbfgs` takes the minimum, and
    no seed changes it.

    Args:
        weigh: the weights of a batch's losses (adam).

    Raises:
        MacError: the loss is not finite.
    """
    scale = Scale.of(views.original) if params.standardize else None
    if scale:
        views, start = scale.views(views), scale.into(start)
    if params.init == "zeros":
        start = Heads(torch.zeros_like(start.weight), torch.zeros_like(start.bias))
    raw = scale.out_of if scale else lambda fitted: fitted
    history: list[dict[str, object]] = []
    names = [f"val_{name}" for name in validation.grouping.names]

    def record(epoch: int, accuracy: Accuracy, loss: Tensor) -> None:
        worst, mean = validation.scores(accuracy)
        for s, seed in enumerate(seeds):
            row = {
                "epoch": epoch + 1,
                "seed": seed,
                "loss": loss[s, 0].item(),
                "val_worst": worst[s, 0].item(),
                "val_mean": mean[s, 0].item(),
            }
            history.append(row | dict(zip(names, accuracy[s, 0].tolist(), strict=True)))

    if params.solver == "lbfgs":
        pairs = [heads.fit_lbfgs(views, a, b, start.bias.shape[-1], params.l2) for a, b in zip(alphas, betas, strict=True)]
        solved = raw(Heads(torch.cat([h.weight for h, _ in pairs], 1), torch.cat([h.bias for h, _ in pairs], 1)))
        if bad := [loss for _, loss in pairs if not math.isfinite(loss)]:
            raise MacError(f"retrain: the loss is {bad[0]} at the end of L-BFGS; raise retrain.l2")
        seeds = seeds[:1]
        record(0, validation.accuracy(solved), torch.tensor([[loss for _, loss in pairs]]))
        return Fit(solved, torch.ones(1, len(alphas), dtype=torch.int64), history)

    best = BestSoFar(validation)

    def keep_best(epoch: int, fitted: Heads, loss: Tensor) -> None:
        record(epoch, best.offer(epoch + 1, raw(fitted)), loss)

    device = views.table.device
    alpha, beta = (torch.tensor(values, dtype=torch.float32, device=device) for values in (alphas, betas))
    solver = Adam(params.epochs, params.lr, params.lr_step, params.lr_gamma)
    seeds = [seed * params.average + member for seed in seeds for member in range(params.average)]
    try:
        heads.fit_adam(views, alpha, beta, seeds, start, params.l2, solver, keep_best, weigh)
    except heads.NotFiniteError as error:
        raise MacError(f"retrain: {error}; lower retrain.lr") from None
    return Fit(best.heads.averaged(params.average), best.epoch, history)
