import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from pipeline import store, train
from pipeline.compute import device
from pipeline.errors import MacError
from pipeline.network import backbone, training
from tests.conftest import Project


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_learning_rates_are_pytorch_s(schedule: str) -> None:
    parameter, steps = torch.nn.Parameter(torch.zeros(1)), 50
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    reference = None
    if schedule == "cosine":
        reference = CosineAnnealingLR(optimizer, steps)
    if schedule == "one_cycle":
        # PyTorch's cycle ends on its last step, ours one after, as its cosine does.
        reference = OneCycleLR(optimizer, 0.1, total_steps=steps + 1, pct_start=(0.3 * steps + 1) / (steps + 1), final_div_factor=1e9)
    for step in range(steps):
        assert training.learning_rate(schedule, 0.1, step / steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        if reference:
            reference.step()


def run(project: Project, out: str = "erm") -> Path:
    params = project.params
    path = project.data / out
    train.train(project.data / "images.h5", path, params.model, params.train, torch.device("cpu"), project.data / "scratch")
    return path


def test_the_folder_holds_what_it_says(finished: Project) -> None:
    folder = finished.data / "erm"
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert {"train_loss", "val_worst", "val_mean", "val_landbird_land", "val_waterbird_water"} <= history[0].keys()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epoch"] == 2
    assert metrics["val"]["worst_group"] == pytest.approx(float(history[-1]["val_worst"]))
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.safetensors",
        "history.csv",
        "metrics.json",
        "model.json",
        "model.safetensors",
    ]
    best = max(history, key=lambda row: (float(row["val_worst"]), float(row["val_mean"]), -int(row["epoch"])))
    assert metrics["best_epoch"] == int(best["epoch"])
    assert not list((finished.data / "scratch").iterdir())
    opened = store.open_model(folder, "erm")
    assert opened.spec["architecture"] == finished.params.model.architecture
    assert not backbone.load(opened, torch.device("cpu")).training


def test_training_again_gives_the_same_bytes(project: Project) -> None:
    again = run(project, "again")
    for file in (project.data / "erm").iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


class _KilledError(BaseException):
    """Stands for a kill: no handler of the code under test takes it."""


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_run_that_is_cut_off_ends_as_if_it_had_not_been(project: Project, monkeypatch: pytest.MonkeyPatch, momentum: float) -> None:
    project.set(train__epochs=3, train__schedule="one_cycle", train__momentum=momentum)
    whole = run(project, "whole")
    original, epochs = training.Run.train_epoch, []

    def cut_off(self: training.Run) -> None:
        if len(epochs) == 2:
            raise _KilledError
        epochs.append(self.epoch)
        original(self)

    monkeypatch.setattr(training.Run, "train_epoch", cut_off)
    with pytest.raises(_KilledError):
        run(project, "pieces")
    assert not (project.data / "pieces").exists()
    epochs.clear()
    pieces = run(project, "pieces")
    assert epochs == [2]  # only the epoch that was missing
    for file in whole.iterdir():
        assert (pieces / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_damaged_checkpoint_starts_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    original = training.Run.save

    def cut_off(self: training.Run, path: Path) -> None:
        original(self, path)
        saved.append(path)
        raise _KilledError

    monkeypatch.setattr(training.Run, "save", cut_off)
    with pytest.raises(_KilledError):
        run(project, "again")
    monkeypatch.undo()
    saved[0].write_bytes(saved[0].read_bytes()[:-5])
    again = run(project, "again")
    assert (again / "model.safetensors").read_bytes() == (project.data / "erm/model.safetensors").read_bytes()


def test_select_names_the_epoch_that_is_the_model(project: Project) -> None:
    project.set(train__select="best")
    folder = run(project)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epoch"] == metrics["best_epoch"]
    assert (folder / "last.safetensors").exists()
    assert not (folder / "best.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_earlier_model(project: Project) -> None:
    before = (project.data / "erm/model.safetensors").read_bytes()
    project.set(train__lr=1e30)
    line = project.fail("train")
    assert "train: the loss is nan in epoch 1, batch 2; lower train.lr" in line or "inf in epoch 1" in line
    assert (project.data / "erm/model.safetensors").read_bytes() == before


def test_pretrained_weights_are_part_of_the_provenance(project: Project) -> None:
    weights = project.folder / "weights.safetensors"
    state = load_file(project.data / "erm/model.safetensors")
    from safetensors.torch import save_file

    save_file({name.removeprefix("trunk."): tensor for name, tensor in state.items() if name.startswith("trunk.")}, weights)
    project.set(model__weights=str(weights), train__epochs=1)
    folder = store.open_model(run(project), "erm")
    assert folder.provenance.made_from["weights"] == store.file_digest(weights)


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.pick("auto").type == "cpu"
    with pytest.raises(MacError, match="--device cuda: PyTorch sees no CUDA device"):
        device.pick("cuda")
    with pytest.raises(MacError, match="--device gpu: should be auto, cpu"):
        device.pick("gpu")
