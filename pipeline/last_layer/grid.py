"""Every (α, β) of a grid and every seed in one batched fit, and the pair that validation picks."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from pipeline.last_layer.heads import Heads
from pipeline.last_layer.mac import fit, load_views
from pipeline.last_layer.validation import Validation
from pipeline.metrics import Accuracy, Groups, group_accuracy, weighted_mean, worst_group
from pipeline.params import RetrainParams, SweepParams
from pipeline.store import Artefact


@dataclass(frozen=True)
class Grid:
    """A fitted grid of K settings, on the CPU.

    Attributes:
        settings: (α, β) of each.
        heads: (S, K, …), one for each of `seeds`.
        val: (2, S, K), worst-group (or worst-class) and mean accuracy on the validation split.
        picked: the setting with the best validation worst group, mean over seeds (ties: the mean, then the first).
        kind: `group` or `class`, whose worst it is.
    """

    settings: list[tuple[float, float]]
    seeds: list[int]
    heads: Heads
    val: Accuracy
    picked: int
    kind: str


def fit_grid(features: Artefact, erm: Heads, retraining: RetrainParams, sweep: SweepParams, on: torch.device) -> Grid:
    """Fit the grid of `sweep` on features.h5, from the ERM head."""
    settings = list(product(sweep.alphas, sweep.betas))
    views, validation = load_views(features, retraining, on), Validation.of(features, on)
    seeds = list(range(retraining.seeds)) if retraining.solver == "adam" else [0]
    alphas, betas = [a for a, _ in settings], [b for _, b in settings]
    heads = fit(views, validation, erm.to(on), retraining, alphas, betas, seeds).heads
    val = np.stack(validation.scores(validation.accuracy(heads)))
    worst, mean = (score.mean(0).tolist() for score in val)
    picked = max(range(len(settings)), key=lambda k: (worst[k], mean[k], -k))
    return Grid(settings, seeds, heads.to(torch.device("cpu")), val, picked, validation.grouping.kind)


def test_scores(features: Artefact, heads: Heads) -> Accuracy:
    """Worst-group and mean accuracy of (S, K) heads on the test split, (2, S, K)."""
    label = features["test/label"][:]
    grouping = Groups.of(features).grouping(label, features["test/attribute"][:])
    x = torch.from_numpy(features["test/original"][:])
    # A setting at a time: all logits at once would grow with the grid.
    settings = (Heads(heads.weight[:, [k]], heads.bias[:, [k]]) for k in range(heads.bias.shape[1]))
    correct = (head.logits(x)[:, 0].argmax(-1).numpy() == label for head in settings)
    accuracy = np.stack([group_accuracy(each, grouping.index, len(grouping.names)) for each in correct], 1)
    return np.stack([worst_group(accuracy), weighted_mean(accuracy, grouping.count)])
