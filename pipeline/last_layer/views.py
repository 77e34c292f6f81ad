"""The cached features of the retraining set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.compute.device import free_memory
from pipeline.compute.progress import log
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.table import Resident, Streamed, Table, blocks, step_of
from pipeline.params.fit import FitParams
from pipeline.store import Artefact

MARGIN = 0.7  # features are kept in memory up to this share of what is free


@dataclass(frozen=True)
class Views:
    """The retraining set: M rows, each with an original view and, in R draws, a masked and a combined view.

    Attributes:
        table: the features of all views: M originals, then R · M masked views, then R · M combined views,
            draw by draw, each draw in its order. Masked and combined views may be left out.
        label: (M,) int64.
        order: (R, M) int64, the row at each place of a draw: its batches one after another.
        sizes: (batches,) int64 on the CPU, the rows of each batch, the same in all draws.
        weight: (M,) float32, the weight of each original in its loss term, 1 on average.
        intervention_weight: (M,) float32, the weight of each row in the terms of the masked and the combined
            views, 1 on average; 0 for a row that `features.low_loss` leaves as it is.
    """

    table: Table
    label: Tensor
    order: Tensor
    sizes: Tensor
    weight: Tensor
    intervention_weight: Tensor

    @classmethod
    def of(
        cls, features: Artefact, params: FitParams, on: torch.device, interventions: bool = True
    ) -> "Views":
        """The retraining set of features.h5, with or without the masked and combined views.

        If classes weigh the same, they do so among the originals, and among the rows with interventions.
        """
        label = torch.from_numpy(features["train/label"][:]).to(on)
        weight = class_weights(label, params.class_weights)
        intervention_weight = weight
        if "train/intervened" in features:
            among = torch.from_numpy(features["train/intervened"][:]).to(on)
            intervention_weight = torch.zeros_like(weight)
            intervention_weight[among] = class_weights(label[among], params.class_weights)
            intervention_weight *= len(label) / among.sum()
        names = ("original", "masked", "combined") if interventions else ("original",)
        table = Streamed(features, [f"train/{name}" for name in names], on)
        return cls(
            table=_placed(table, params.memory),
            label=label,
            order=torch.from_numpy(features["train/order"][:]).long().to(on),
            sizes=torch.bincount(torch.from_numpy(features["train/batch"][0])),
            weight=weight,
            intervention_weight=intervention_weight,
        )

    def originals(self, rows: Tensor | None = None) -> Iterator[Tensor]:
        """The originals of some rows, (n,) int64 or (M,) bool, or of all: successive blocks (b, D) of them.

        The memory of a block is used again as soon as the next is asked for.
        """
        if rows is None or is_all(rows):
            return (block for _, block in blocks(self.table, 0, len(self.label)))
        return self.table.rows(numbers(rows).to(self.table.index_on).split(step_of(self.table)))

    def repeated(self, rows: Tensor) -> Callable[[], Iterator[Tensor]]:
        """Begins to read the same blocks as `originals`, again and again.

        Where some rows, and not all, are read, and they fit into memory, they are taken once.
        """
        needed = 4 * self.table.width * len(numbers(rows))
        if not is_all(rows) and needed <= MARGIN * free_memory(self.table.device):
            taken = self.take(rows)
            return lambda: iter(taken.split(step_of(self.table)))
        return lambda: self.originals(rows)

    def take(self, rows: Tensor) -> Tensor:
        """The originals of some rows, (n,) int64 or (M,) bool, all at once: (n, D)."""
        rows = numbers(rows)
        taken, done = torch.empty(len(rows), self.table.width, device=self.table.device), 0
        for block in self.originals(rows):
            taken[done : done + len(block)] = block
            done += len(block)
        return taken

    def logits(self, heads: Heads, rows: Tensor) -> Tensor:
        """What heads (S, K, …) say of the originals of some rows, (S, K, n, C)."""
        return torch.cat([heads.logits(block) for block in self.originals(rows)], 2)


def is_all(rows: Tensor) -> bool:
    """Whether some rows, given as (M,) bool, are all of them."""
    return rows.dtype == torch.bool and bool(rows.all())


def numbers(rows: Tensor) -> Tensor:
    """The numbers (n,) int64 of some rows, given as such or as (M,) bool."""
    return rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows


def _placed(table: Streamed, memory: Literal["auto", "resident", "streamed"]) -> Table:
    """The table in memory, or as it is: as `retrain.memory` says, or if that is auto, by the free memory."""
    needed, free = 4 * table.width * len(table), free_memory(table.device)
    resident = memory == "resident" or (memory == "auto" and needed <= MARGIN * free)
    log.info(
        "features of %.3g GB are %s (retrain.memory %s; %.3g GB are free)",
        *(needed / 1e9, "kept in memory" if resident else "read in every pass", memory, free / 1e9),
    )
    return Resident.of(table) if resident else table


def class_weights(label: Tensor, how: Literal["none", "balanced"]) -> Tensor:
    """(M,) float32, the weight of each row, 1 on average.

    `none`: 1. `balanced`: all classes that have rows have the same total: M / (number of these classes ·
    count of the row's class).
    """
    if how == "none":
        return torch.ones(len(label), device=label.device)
    count = torch.bincount(label).float()
    return len(label) / ((count > 0).sum() * count)[label]
