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
        val_worst: the worst accuracy on validation by the criterion that chooses.
        val_mean: the mean accuracy on validation by this criterion.
    """

    lr: float
    train_loss: float
    train_accuracy: float
    val_accuracy: tuple[float, ...]
    val_worst: float
    val_mean: float


@dataclass
class History:
    """All epochs so far.

    Attributes:
        validation: the groups of the validation split, for what is reported.
        training: the groups of the training split, for the adjusted mean.
        epochs: the measurements of each epoch, in order.
        first: the number of the first epoch: 1, or 0 for a model that is measured and not trained.
    """

    validation: Grouping
    training: Grouping
    epochs: list[Epoch] = field(default_factory=list)
    first: int = 1

    def val_accuracy(self, epoch: int) -> Accuracy:
        """(groups,) validation accuracy after an epoch, by its number."""
        return np.array(self.epochs[epoch - self.first].val_accuracy)

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch by the criterion and `metrics.prefer`."""
        return self.first + prefer(
            [epoch.val_worst for epoch in self.epochs], [epoch.val_mean for epoch in self.epochs]
        )

    def val_metrics(self, epoch: int) -> dict[str, Any]:
        """`metrics.as_dict` of the validation split after an epoch, by its number."""
        return as_dict(self.val_accuracy(epoch), self.validation, self.training)

    def rows(self) -> list[dict[str, object]]:
        """The rows of history.csv, one for each epoch."""
        return [self._row(number, epoch) for number, epoch in enumerate(self.epochs, self.first)]

    def _row(self, number: int, epoch: Epoch) -> dict[str, object]:
        row: dict[str, object] = {
            "epoch": number,
            "lr": epoch.lr,
            "train_loss": epoch.train_loss,
            "train_accuracy": epoch.train_accuracy,
            "val_worst": epoch.val_worst,
            "val_mean": epoch.val_mean,
        }
        for name, accuracy in zip(self.validation.names, epoch.val_accuracy, strict=True):
            row[f"val_{name}"] = accuracy
        return row
