"""The cached features of the retraining set, on the device."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.params.fit import FitParams
from pipeline.store import Artefact


@dataclass(frozen=True)
class Views:
    """The retraining set: M rows, each with an original view and, in R draws, a masked and a combined view.

    Attributes:
        table: (T, D) float32, the features of all views in one table, so that a batch needs one indexing: M
            originals, then R · M masked views, then R · M combined views, draw by draw. Masked and combined
            views may be left out.
        label: (M,) int64.
        batch: (R, M) int64, the number of each row's batch in each draw.
        weight: (M,) float32, the weight of each original in its loss term, 1 on average.
        intervention_weight: (M,) float32, the weight of each row in the terms of the masked and the combined
            views, 1 on average; 0 for a row that `features.low_loss` leaves as it is.
    """

    table: Tensor
    label: Tensor
    batch: Tensor
    weight: Tensor
    intervention_weight: Tensor

    @classmethod
    def of(
        cls, features: Artefact, params: FitParams, on: torch.device, interventions: bool = True
    ) -> "Views":
        """The retraining set of features.h5 on the device, with or without the masked and combined views.

        If classes weigh the same, they do so among the originals, and among the rows with interventions.
        """
        label = torch.from_numpy(features["train/label"][:]).to(on)
        draws, rows, width = features["train/masked"].shape
        table = np.empty((1 + 2 * draws if interventions else 1, rows, width), np.float32)
        features["train/original"].read_direct(table[0])
        if interventions:
            features["train/masked"].read_direct(table[1 : 1 + draws])
            features["train/combined"].read_direct(table[1 + draws :])
        weight = class_weights(label, params.class_weights)
        intervention_weight = weight
        if "train/intervened" in features:
            among = torch.from_numpy(features["train/intervened"][:]).to(on)
            intervention_weight = torch.zeros_like(weight)
            intervention_weight[among] = class_weights(label[among], params.class_weights)
            intervention_weight *= rows / among.sum()
        return cls(
            table=torch.from_numpy(table).flatten(0, 1).to(on),
            label=label,
            batch=torch.from_numpy(features["train/batch"][:]).long().to(on),
            weight=weight,
            intervention_weight=intervention_weight,
        )

    @property
    def original(self) -> Tensor:
        """(M, D)."""
        return self.table[: len(self.label)]

    @property
    def interventions(self) -> Tensor:
        """(2, R, M, D): the masked views, then the combined views."""
        return self.table[len(self.label) :].view(2, *self.batch.shape, -1)


def class_weights(label: Tensor, how: Literal["none", "balanced"]) -> Tensor:
    """(M,) float32, the weight of each row, 1 on average.

    `none`: 1. `balanced`: all classes that have rows have the same total: M / (number of these classes ·
    count of the row's class).
    """
    if how == "none":
        return torch.ones(len(label), device=label.device)
    count = torch.bincount(label).float()
    return len(label) / ((count > 0).sum() * count)[label]
