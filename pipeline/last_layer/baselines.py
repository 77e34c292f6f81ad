"""What a last-layer method starts from and what it gives: one module a method, one line in `METHODS` (pipeline.baselines)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pipeline.errors import MacError
from pipeline.last_layer.heads import Heads, Views
from pipeline.last_layer.validation import Validation
from pipeline.metrics import Labels
from pipeline.params import RetrainParams


@dataclass(frozen=True)
class Cached:
    """The cached features, on the device.

    Attributes:
        views: the retraining set; its masked and combined views are empty.
        group: (M,) int64 training groups, or None where a training attribute is unknown.
        held_out: (M,) bool, the rows that ERM was not trained on.
        erm: the ERM head, (1, 1, …).
        params: of retraining; α and β are not used.
    """

    views: Views
    group: Tensor | None
    held_out: Tensor
    validation: Validation
    erm: Heads
    params: RetrainParams

    @property
    def classes(self) -> int:
        return int(self.erm.bias.shape[-1])

    @property
    def seeds(self) -> list[int]:
        return list(range(self.params.seeds))


@dataclass(frozen=True)
class Fitted:
    """What a method found.

    Attributes:
        heads: (S, 1, …) on raw features, one a seed; one where nothing is drawn.
        chosen: the settings that validation chose, by name.
        note: what a reader of its row should know.
    """

    heads: Heads
    chosen: dict[str, object]
    note: str = ""


class NotApplicableError(MacError):
    """A method cannot be had on this dataset: it needs labels or images that are not there."""


@dataclass(frozen=True)
class Method:
    """A row of the table: its name, source, the group labels it sees, and how it is fitted."""

    title: str
    source: str
    labels: Labels
    fit: Callable[[Cached], Fitted]
