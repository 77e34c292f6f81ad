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
    """The retraining set: M rows as they are and, in each of R draws, masked and combined.

    Attributes:
        table: (T, D) float32, the features of all views, so that any batch is read by one indexing: M
            originals, then R · M masked and R · M combined ones, draw by draw. The last two may be left out.
        label: (M,) int64.
        batch: (R, M) int64, the number of the batch that each row is in, in each draw.
        weight: (M,) float32, the weight of each row in every loss term, 1 on average.
    """

    table: Tensor
    label: Tensor
    batch: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, features: Artefact, params: FitParams, on: torch.device, interventions: bool = True
    ) -> "Views":
        """The retraining set of features.h5 on the device, with or without the masked and combined views."""
        label = torch.from_numpy(features["train/label"][:]).to(on)
        draws, rows, width = features["train/masked"].shape
        table = np.empty((1 + 2 * draws if interventions else 1, rows, width), np.float32)
        features["train/original"].read_direct(table[0])
        if interventions:
            features["train/masked"].read_direct(table[1 : 1 + draws])
            features["train/combined"].read_direct(table[1 + draws :])
        return cls(
            table=torch.from_numpy(table).flatten(0, 1).to(on),
            label=label,
            batch=torch.from_numpy(features["train/batch"][:]).long().to(on),
            weight=class_weights(label, len(features.attribute("classes")), params.class_weights),
        )

    @property
    def original(self) -> Tensor:
        """(M, D)."""
        return self.table[: len(self.label)]

    @property
    def interventions(self) -> Tensor:
        """(2, R, M, D): the masked ones, then the combined ones."""
        return self.table[len(self.label) :].view(2, *self.batch.shape, -1)


def class_weights(label: Tensor, classes: int, how: Literal["none", "balanced"]) -> Tensor:
    """(M,) float32, the weight of each row.

    `none`: 1. `balanced`: M / (classes · count of the row's class), so that all classes have the same total.
    """
    if how == "none":
        return torch.ones(len(label), device=label.device)
    count = torch.bincount(label, minlength=classes).float()
    return len(label) / (classes * count)[label]
