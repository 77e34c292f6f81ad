"""A grid of (α, β, l2), fitted for all seeds at once, and the settings that can be picked."""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.views import Views
from pipeline.metrics import Accuracy, prefer
from pipeline.params.fit import FitParams
from pipeline.params.selection import Criterion, CriterionName
from pipeline.params.sweep import GridParams
from pipeline.selection import criterion_of
from pipeline.setting import Setting
from pipeline.store import Artefact, FittedHeads

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Grid:
    """A fitted grid of K settings, on the CPU.

    Attributes:
        settings: the settings; l2 is None where `fit` has the number.
        seeds: the seeds of the S heads of each setting.
        heads: (S, K, …).
        erm: (2,), the same scores as in `val`, of the ERM head.
        val: (2, S, K), worst and mean accuracy on the validation split, by the criterion.
        best: the best of the settings by `metrics.prefer`, on validation scores averaged over the seeds.
        plain: the best of those with α = β = 0.
        default: the best of those with the pair of `sweep.default`; None if the criterion picks the pair.
        criterion: what compared them.
    """

    settings: list[Setting]
    seeds: list[int]
    heads: Heads
    erm: Accuracy
    val: Accuracy
    best: int
    plain: int
    default: int | None
    criterion: Criterion


def fit_grid(
    features: Artefact,
    erm: FittedHeads,
    fit: FitParams,
    sweep: GridParams,
    criterion: CriterionName,
    on: torch.device,
) -> Grid:
    """Fit the settings of `sweep` on features.h5, starting from the ERM head; `criterion` chooses."""
    validation, start = HeldOutSplit.to_choose(features, on, erm, criterion), Heads.of(erm).to(on)
    by_criterion = sweep.by_criterion(criterion_of(validation.criterion))
    settings = sweep.settings(fit.l2, with_default=not by_criterion)
    heads = mac.fit(Views.of(features, fit, on), validation, start, fit, settings).heads
    worst, mean = validation.scores(heads)
    # (0, 0) comes first, with each l2.
    plain = sum(each.alpha == each.beta == 0 for each in settings)
    default = None
    if not by_criterion:
        places = [k for k, each in enumerate(settings) if each[:2] == sweep.default]
        default = places[prefer(worst[:, places].mean(0), mean[:, places].mean(0))]
    return Grid(
        settings=settings,
        seeds=fit.head_seeds,
        heads=heads.to(CPU),
        erm=np.stack(validation.scores(start))[:, 0, 0],
        val=np.stack([worst, mean]),
        best=prefer(worst.mean(0), mean.mean(0)),
        plain=prefer(worst[:, :plain].mean(0), mean[:, :plain].mean(0)),
        default=default,
        criterion=criterion_of(validation.criterion),
    )


def scores_of_test_split(features: Artefact, heads: Heads) -> Accuracy:
    """Worst-group and mean accuracy of heads (S, K, …) on the test split, (2, S, K)."""
    return accuracy_on_test_split(features, heads)[0]


def accuracy_on_test_split(features: Artefact, heads: Heads) -> tuple[Accuracy, Accuracy, list[str]]:
    """The accuracies of heads (S, K, …) on the test split.

    Returns:
        Of the worst group and the mean, (2, S, K); of each group, (S, K, G); and the names of the groups, or
        of the classes if groups are unknown.
    """
    test = HeldOutSplit.to_measure(features, "test", CPU)
    # One setting at a time, so that the memory for logits does not grow with the grid.
    found = [test.accuracy(heads.of_setting(k)) for k in range(heads.bias.shape[1])]
    of_groups = np.concatenate(found, axis=1)
    return np.stack(test.grouping.scores(of_groups)), of_groups, test.grouping.names
