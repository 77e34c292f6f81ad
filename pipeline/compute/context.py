"""Where a stage computes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pipeline.compute.engine import Cluster

# Takes the number of an epoch, and its row of history.csv.
Track = Callable[[int, Mapping[str, object]], None]


def untracked(_epoch: int, _row: Mapping[str, object]) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Context:
    """Where a stage computes.

    Attributes:
        device: PyTorch's name of the device; with a cluster, the kind of device of its workers.
        scratch: folder for unfinished work.
        cluster: processes that do the work instead of this one.
        threads: of the CPU, if a parameter sets them (`study.threads`): then a training states them.
        track: is told of every epoch of a training as it ends; it changes nothing.
    """

    device: str
    scratch: Path
    cluster: "Cluster | None" = None
    threads: int | None = None
    track: Track = untracked

    @property
    def on(self) -> "torch.device":
        """The device. PyTorch is imported only here, because some stages do not need it."""
        import torch

        return torch.device(self.device)

    @property
    def workers(self) -> tuple[str, ...]:
        """The hardware of the cluster's workers, each kind once; empty without a cluster."""
        return () if self.cluster is None else self.cluster.hardware
