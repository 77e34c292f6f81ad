"""The measurements after each epoch of a training, and the best epoch."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.metrics import Accuracy, Grouping, as_dict, prefer


@dataclass(frozen=True)
class Epoch:
    """The measurements of one epoch.

    Attributes:
        lr: learning rate of the last step.
        train_loss: mean cross-entropy over the batches; each batch is measured before its step.
        train_accuracy: share of correctly classified images, also before each step, in [0, 1].
        val_accuracy: accuracy of each validation group after the epoch; NaN for a group without images.
    """

    lr: float
    train_loss: float
    train_accuracy: float
    val_accuracy: tuple[float, ...]


@dataclass
class History:
    """All epochs so far.

    Attributes:
        validation: the groups of the validation split.
        training: the groups of the training split, for the adjusted mean.
        epochs: the measurements of each epoch, in order.
    """

    validation: Grouping
    training: Grouping
    epochs: list[Epoch] = field(default_factory=list)

    def val_accuracy(self, epoch: int) -> Accuracy:
        """(groups,) validation accuracy after an epoch, counted from 1."""
        return np.array(self.epochs[epoch - 1].val_accuracy)

    def worst_and_mean(self, epoch: int) -> tuple[float, float]:
        """Worst-group and mean validation accuracy after an epoch, counted from 1."""
        worst, mean = self.validation.scores(self.val_accuracy(epoch))
        return worst.item(), mean.item()

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch by `metrics.prefer`, counted from 1."""
        measured = [self.worst_and_mean(epoch) for epoch in self._numbers]
        return 1 + prefer([worst for worst, _ in measured], [mean for _, mean in measured])

    def val_metrics(self, epoch: int) -> dict[str, Any]:
        """`metrics.as_dict` of the validation split after an epoch, counted from 1."""
        return as_dict(self.val_accuracy(epoch), self.validation, self.training)

    def rows(self) -> list[dict[str, object]]:
        """The rows of history.csv, one for each epoch."""
        return [self._row(number) for number in self._numbers]

    @property
    def _numbers(self) -> range:
        return range(1, len(self.epochs) + 1)

    def _row(self, number: int) -> dict[str, object]:
        epoch = self.epochs[number - 1]
        worst, mean = self.worst_and_mean(number)
        row: dict[str, object] = {
            "epoch": number,
            "lr": epoch.lr,
            "train_loss": epoch.train_loss,
            "train_accuracy": epoch.train_accuracy,
            "val_worst": worst,
            "val_mean": mean,
        }
        for name, accuracy in zip(self.validation.names, epoch.val_accuracy, strict=True):
            row[f"val_{name}"] = accuracy
        return row
