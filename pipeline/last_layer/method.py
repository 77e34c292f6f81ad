"""The inputs and the results of a method of the last layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MacError
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.views import Views
from pipeline.metrics import Labels
from pipeline.params.fit import FitParams
from pipeline.params.selection import CriterionName
from pipeline.splits import unseen_by_erm
from pipeline.store import ModelFolder

if TYPE_CHECKING:
    from pipeline.project import Opened


@dataclass(frozen=True)
class Cached:
    """The inputs of every method: the cached features and the ERM head, on the device.

    Attributes:
        views: the retraining set, M rows, without masked and combined views.
        group: (M,) int64, the groups of the rows; None if any attribute in the retraining set is unknown.
        unseen: (M,) bool, the rows that ERM was not trained on.
        early: (M, C) float32, the logits of the rows after each epoch that `train.keep_epochs` kept, by its
            number; only epochs before the one that is the ERM model.
        validation: the validation split.
        erm: the ERM head, (1, 1, …).
        erm_labels: the group labels that ERM itself saw.
        params: how a last layer is fitted.
        l2s: the strengths of the L2 penalty to choose from; one if `params` has the number.
    """

    views: Views
    group: Tensor | None
    unseen: Tensor
    early: Mapping[int, Tensor]
    validation: HeldOutSplit
    erm: Heads
    erm_labels: Labels
    params: FitParams
    l2s: Sequence[float]

    @classmethod
    def of(
        cls,
        given: "Opened",
        params: FitParams,
        l2s: Sequence[float],
        criterion: CriterionName,
        on: torch.device,
    ) -> "Cached":
        """From images.h5, erm and features.h5; `criterion` chooses on the validation split."""
        images, erm, features = given.file("images"), given.model("erm"), given.file("features")
        grouping = given.groups.grouping(features["train/label"][:], features["train/attribute"][:])
        hold_out, seed = (given.stated("erm", "train", key) for key in ("hold_out", "seed"))
        training = given.rows("train")
        left_out = training[unseen_by_erm(images["label"][:][training], hold_out, seed)]
        return cls(
            views=Views.of(features, params, on, interventions=False),
            group=torch.from_numpy(grouping.index).to(on) if grouping.kind == "group" else None,
            unseen=torch.from_numpy(np.isin(features["train/row"][:], left_out)).to(on),
            early=_early(erm, np.searchsorted(training, features["train/row"][:]), on),
            validation=HeldOutSplit.to_choose(features, on, erm.head(), criterion),
            erm=Heads.of(erm.head()).to(on),
            erm_labels=given.erm_labels,
            params=params,
            l2s=l2s,
        )

    @property
    def classes(self) -> int:
        """C."""
        return int(self.erm.bias.shape[-1])

    def held_out(self) -> tuple[Tensor, str]:
        """The rows for a method that learns where ERM fails, (M,) bool, and a note.

        They are the rows that ERM was not trained on. If there are none, they are all rows, and the note says
        so. It also says how many classes have no row among them.
        """
        if self.unseen.any():
            return self.unseen, self.lacking(self.unseen)
        note = "on images that ERM was trained on: none was held out (train.hold_out)"
        return torch.ones_like(self.unseen), note

    def lacking(self, rows: Tensor) -> str:
        """A note on how many classes have no image among some rows, (M,) bool; empty if all have."""
        missing = self.classes - len(self.views.label[rows].unique())
        return (
            f"{missing} of {self.classes} classes have no image among those that it learns from"
            if missing
            else ""
        )


def _early(erm: ModelFolder, places: NDArray[np.int64], on: torch.device) -> dict[int, Tensor]:
    """The logits of some training images after each kept epoch before ERM's own.

    Args:
        places: (M,), the places of these images among all training images.

    Raises:
        MacError: an earlier version kept them, which did not note ERM's own epoch.
    """
    if "early" not in erm.sets:
        return {}
    kept = erm.read("early")
    if "erm" not in kept:
        raise MacError(f"{erm.path}: early.safetensors is of an earlier version; run 'mac train'")
    before = kept["epoch"] < kept["erm"]
    logits = torch.from_numpy(kept["logits"][before][:, places]).to(on)
    return dict(zip(kept["epoch"][before].tolist(), logits, strict=True))


@dataclass(frozen=True)
class Fitted:
    """The result of a method.

    Attributes:
        heads: (S, 1, …) for raw features, one for each seed; only one if nothing is random.
        chosen: the settings that were chosen, by name.
        note: a remark on the method's row in the table.
        labels: the group labels that this fit saw, if they are not what `metrics.seen` says.
    """

    heads: Heads
    chosen: dict[str, object]
    note: str = ""
    labels: Labels | None = None


class NotApplicableError(MacError):
    """A method cannot be fitted on this dataset: it needs labels or images that are not there."""


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    Attributes:
        title: its name in the table.
        source: who published it, or what it does.
        labels: the group labels that it sees; those to choose only if the criterion reads them.
        fit: fits its heads; raises NotApplicableError if this dataset does not allow it.
    """

    title: str
    source: str
    labels: Labels
    fit: Callable[[Cached], Fitted]
