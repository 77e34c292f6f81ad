"""What worst-group and mean accuracy each method can have if its classes are scaled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.project import Opened
from pipeline.results import robust_coverage
from pipeline.store import FittedHeads


@dataclass(frozen=True)
class TradeOff:
    """A method's curve on the test split.

    Attributes:
        title: the method's name.
        trained: whether it trains on group labels.
        envelope: (P, 2), mean and worst-group accuracy, in [0, 1].
        at: (2,), mean and worst-group accuracy without scaling.
    """

    title: str
    trained: bool
    envelope: NDArray[np.float64]
    at: NDArray[np.float64]

    @property
    def coverage(self) -> float:
        """The area below the curve, in [0, 1]."""
        return robust_coverage.area(self.envelope)


def trade_offs(given: Opened, baselines: Mapping[str, Any]) -> list[TradeOff]:
    """The curves of ERM, MaC and the other last-layer methods; of each the head that validation prefers.

    Args:
        given: images, erm, features, retrained and baselines.
        baselines: `methods` of the metrics.json of baselines.
    """
    features, grouping = given.file("features"), given.grouping("test")
    original, label = features["test/original"][:], features["test/label"][:]
    found = []
    for title, trained, head in _heads(given, baselines):
        logits = head.logits(original)[0]
        envelope = robust_coverage.curve(logits, label, grouping)
        worst, mean = grouping.scores(grouping.accuracy(logits.argmax(1) == label))
        found.append(TradeOff(title, trained, envelope, np.array([mean, worst])))
    return found


def _heads(given: Opened, baselines: Mapping[str, Any]) -> Iterator[tuple[str, bool, FittedHeads]]:
    yield "ERM", False, given.model("erm").head()
    yield "MaC", False, given.model("retrained").head()
    tensors = given.model("baselines").read()
    for name, method in baselines.items():
        if name not in ("erm", "class_scaling"):  # the second one is a point on ERM's curve
            heads = FittedHeads.of(tensors, name)
            yield method["title"], method["sign"] == "✓✓", heads[method["head_seed"]]
