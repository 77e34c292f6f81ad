import logging
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.network.checkpoint import Checkpoint
from pipeline.network.history import Epoch

EPOCHS = [
    Epoch(0.1, 1 / 3, 0.75, (0.1 + 0.2, math.nan), 0.1 + 0.2, 0.7),
    Epoch(1e-9, 0.25, 1.0, (1.0, 0.0), 0.0, 2 / 3),
]


def checkpoint() -> Checkpoint:
    weight = {"trunk.weight": torch.rand(2, 3), "trunk.steps": torch.tensor(5)}
    best = {name: tensor + 1 for name, tensor in weight.items()}
    return Checkpoint(weight, best, {"0": torch.rand(4)}, {"1": torch.rand(6, 2)}, torch.rand(5, 2), EPOCHS)


def test_it_can_be_read_back_exactly(tmp_path: Path) -> None:
    written = checkpoint()
    written.write(tmp_path / "x.safetensors")
    read = Checkpoint.read(tmp_path / "x.safetensors")
    assert read is not None
    for name in ("last", "best", "momentum", "early"):
        before, after = getattr(written, name), getattr(read, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(read.reference, written.reference)
    assert repr(read.epochs) == repr(EPOCHS)  # NaN is not equal to itself


def test_no_file_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Checkpoint.read(tmp_path / "x.safetensors") is None
    assert not caplog.records


@pytest.mark.parametrize("keep", [0, 4, 100, -5])
def test_a_file_that_is_cut_off_is_said_to_be_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint().write(path)
    path.write_bytes(path.read_bytes()[:keep])
    assert Checkpoint.read(path) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{path}: damaged, training starts anew" in caplog.text


@pytest.mark.parametrize(
    ("tensor", "epochs"),
    [
        ("other.weight", "[]"),
        ("last.weight", None),
        ("last.weight", "[]"),  # as it was written before it had the reference
        ("reference.logits", '[{"lr": 1, "train_loss": 1, "train_accuracy": 1, "val_accuracy": []}]'),
        ("last.weight", "[{}]"),
        ("last.weight", "not JSON"),
        ("last.weight", '[{"lr": 1, "train_loss": 1, "train_accuracy": 1, "val_accuracy": [], "more": 1}]'),
    ],
)
def test_a_file_of_another_layout_is_said_to_be_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tensor: str, epochs: str | None
) -> None:
    save_file(
        {tensor: torch.zeros(1)}, tmp_path / "x", {"other": ""} if epochs is None else {"epochs": epochs}
    )
    assert Checkpoint.read(tmp_path / "x") is None
    assert "damaged" in caplog.text
