import json
import math

import numpy as np
import pytest

from pipeline.metrics import Grouping
from pipeline.network.history import Epoch, History

VALIDATION = Grouping("group", ["a", "b", "c"], np.array([0, 0, 0, 1]))  # no image of c
TRAINING = Grouping("group", ["a", "b", "c"], np.array([0, 1, 1, 2]))


def history(*accuracies: tuple[float, float]) -> History:
    """A history of epochs with these validation accuracies of a and b."""
    epochs = []
    for a, b in accuracies:
        epochs.append(Epoch(0.1, 0.5, 0.75, (a, b, math.nan), min(a, b), (3 * a + b) / 4))
    return History(VALIDATION, TRAINING, epochs)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        (
            [(0.9, 0.1), (0.5, 0.4), (0.4, 0.5)],
            2,
        ),  # the mean decides between equal worst groups: a has three images
        ([(0.5, 0.5), (0.9, 0.6), (0.8, 0.6)], 2),
        ([(0.5, 0.5), (0.5, 0.5)], 1),  # the first of equal ones
        ([(0.0, 0.0)], 1),
    ],
)
def test_the_best_epoch_has_the_best_worst_group_then_the_best_mean(
    accuracies: list[tuple[float, float]], best: int
) -> None:
    assert history(*accuracies).best_epoch == best


def test_the_criterion_chooses_whatever_the_groups_say() -> None:
    epochs = [Epoch(0.1, 0.5, 0.75, (1.0, 1.0, 1.0), 0.5, 0.9), Epoch(0.1, 0.5, 0.75, (0.0,) * 3, 0.6, 0.7)]
    assert History(VALIDATION, TRAINING, epochs).best_epoch == 2


def test_its_rows_and_metrics_say_what_was_measured() -> None:
    found = history((1.0, 0.0), (0.5, 1.0))
    second = found.rows()[1]
    assert list(second) == [
        *("epoch", "lr", "train_loss", "train_accuracy", "val_worst", "val_mean"),
        *("val_a", "val_b", "val_c"),
    ]
    assert (second["epoch"], second["lr"], second["train_loss"], second["train_accuracy"]) == (
        2,
        0.1,
        0.5,
        0.75,
    )
    assert (second["val_worst"], second["val_mean"], second["val_a"]) == (0.5, (0.5 * 3 + 1.0) / 4, 0.5)
    metrics = found.val_metrics(1)
    assert metrics["worst_group"] == 0.0
    assert metrics["raw_mean"] == 0.75
    assert metrics["adjusted_mean"] == pytest.approx(
        1 / 3
    )  # of the training images one is of a, two are of b
    assert metrics["groups"] == {"a": 1.0, "b": 0.0}
    json.dumps(metrics, allow_nan=False)
