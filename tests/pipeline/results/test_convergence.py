"""A head at the end of its training, and heads that were stopped early, on features whose truth is known."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from threadpoolctl import ThreadpoolController

from pipeline.project import Opened
from pipeline.results import convergence as module
from pipeline.results.convergence import Rows, compared, convergence, sign_test, trained_on
from pipeline.results.early_stop import stopped_early
from pipeline.store import FittedHeads
from tests import cached

DECAY = 1e-3
ZERO = FittedHeads(np.zeros((1, 3, 6), np.float32), np.zeros((1, 3), np.float32))


def drawn(count: int, seed: int) -> Rows:
    """Features that go by the class, the fourth one with a third of the strength of the first three."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count)
    x = rng.normal(size=(count, 6)) + 2 * np.eye(3, 6)[label]
    return x.astype(np.float32), label


def even(rows: Rows) -> np.ndarray:
    return np.full(len(rows[1]), 1 / len(rows[1]))


def gradient(head: FittedHeads, rows: Rows, weight: np.ndarray) -> float:
    """The length of the gradient of the loss at a head, by autograd."""
    w = torch.from_numpy(head.weight[0]).double().requires_grad_()
    b = torch.from_numpy(head.bias[0]).double().requires_grad_()
    x, label = torch.from_numpy(rows[0]).double(), torch.from_numpy(rows[1])
    losses = F.cross_entropy(x @ w.T + b, label, reduction="none") * torch.from_numpy(weight)
    (losses.sum() + DECAY / 2 * (w.square().sum() + b.square().sum())).backward()
    assert w.grad is not None
    assert b.grad is not None
    return float((w.grad.square().sum() + b.grad.square().sum()).sqrt())


def test_it_is_trained_on_to_the_minimum() -> None:
    training = drawn(200, 0)
    weight = 1 + training[1] / 2
    weight /= weight.sum()
    assert gradient(ZERO, training, weight) > 0.1
    found = trained_on(ZERO, training, weight, DECAY)
    assert gradient(found, training, weight) < 1e-4


def test_the_number_of_threads_changes_no_bit() -> None:
    """BLAS adds in another order with another number of threads, if there is enough to add."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 2000)
    x = (rng.normal(size=(2000, 1024)) + label[:, None] * rng.normal(size=1024) / 20).astype(np.float32)
    head = FittedHeads(rng.normal(size=(1, 2, 1024)).astype(np.float32) / 50, np.zeros((1, 2), np.float32))
    found = []
    for threads in (1, 2):
        with ThreadpoolController().limit(limits=threads, user_api="blas"):
            found.append(compared(head, (x, label), even((x, label)), DECAY, (x[:100], label[:100])))
    assert found[0] == found[1]


def test_a_head_at_the_end_of_its_training_is_not_said_to_be_stopped_early() -> None:
    training, validation = drawn(200, 0), drawn(500, 1)
    end = trained_on(ZERO, training, even(training), DECAY)
    found = compared(end, training, even(training), DECAY, validation)
    assert found["lowest"] == pytest.approx(found["loss"], abs=1e-4)
    assert abs(found["later"] - found["right"]) <= 1
    assert not stopped_early(found)


def test_a_head_that_was_stopped_early_is_said_to_be() -> None:
    """The first steps of gradient descent where the classes' shares differ: rare classes are not told."""
    (x, label), validation = drawn(600, 0), drawn(500, 1)
    kept = (label == 0) | (np.arange(600) % 10 == 0)
    training = x[kept], label[kept]
    early = FittedHeads(ZERO.weight.copy(), ZERO.bias.copy())
    p = np.full((kept.sum(), 3), 1 / 3) - np.eye(3)[training[1]]
    early.weight[0] -= 0.1 * (p.T @ training[0] / kept.sum()).astype(np.float32)
    early.bias[0] -= 0.1 * p.mean(0).astype(np.float32)
    found = compared(early, training, even(training), DECAY, validation)
    end = trained_on(early, training, even(training), DECAY)
    assert found["right"] == (early.logits(validation[0])[0].argmax(1) == validation[1]).sum()
    assert found["later"] == (end.logits(validation[0])[0].argmax(1) == validation[1]).sum()
    assert found["lowest"] < found["loss"] / 2
    assert stopped_early(found)


def test_where_validation_cannot_show_it_nothing_is_said() -> None:
    """A lower loss is not enough, nor few images, nor what may be by chance."""
    found = {"loss": 0.2, "lowest": 0.01, "images": 100, "right": 80, "later": 90, "p": 0.001}
    assert stopped_early(found)
    for change in ({"later": 80, "p": 1.0}, {"p": 0.02}, {"images": 2000}, {"lowest": 0.2}):
        assert not stopped_early(found | change)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (0, 4), (3, 4), (24, 1)])
def test_the_sign_test_is_the_exact_one(better: int, worse: int) -> None:
    expected = 1.0
    if better + worse:
        expected = stats.binomtest(better, better + worse, alternative="greater").pvalue
    assert sign_test(better, worse) == pytest.approx(expected)


def test_it_is_trained_on_with_what_erm_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cached.write(tmp_path, hold_out=0.25).open("images", "erm", "features") as given:
        found = convergence(given)
        assert found is not None
        count = np.bincount(given.file("features")["train/label"][:])
        assert found["rows"] == 60 - round(count[0] / 4) - round(count[1] / 4)
        assert (found["own"], found["images"]) == (False, 80)
        right = given.model("erm").head().logits(given.file("features")["val/original"][:])[0].argmax(-1)
        assert found["right"] == (right == given.file("features")["val/label"][:]).sum()
        erm = given.model("erm")
        provenance = replace(erm.provenance, made_from={"classifier": "0" * 64})
        own = Opened(given.project, {**given._artefacts, "erm": replace(erm, provenance=provenance)})
        assert convergence(own) == {**found, "own": True}
        monkeypatch.setattr(module, "MOST_ROWS", 20)
        few = convergence(given)
        assert few is not None
        assert few["rows"] == 20
        assert few == convergence(given)


def test_the_drawn_rows_are_read_in_order(tmp_path: Path) -> None:
    x, rows = np.random.default_rng(0).normal(size=(1500, 2)), np.arange(1500) % 3 == 1
    with h5py.File(tmp_path / "x.h5", "w") as file:
        np.testing.assert_array_equal(module._read(file.create_dataset("x", data=x), rows), x[rows])


def test_classes_count_as_much_as_in_erm_s_training() -> None:
    weight = module._as_often(np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1, 2]), 3)
    np.testing.assert_allclose(weight, np.array([3, 1 / 3, 1 / 3, 1 / 3]) / 4)
