import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import store
from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.checkpoint import Checkpoint
from pipeline.network.inputs import to_input_grid
from pipeline.network.training import Training
from pipeline.params.inputs import InputParams
from pipeline.params.selection import SelectionParams
from pipeline.project import Project
from pipeline.steps.train import train
from tests import made_up, tiny
from tests.cached import AUTO


@pytest.fixture
def project(own_artefacts: Project) -> Project:
    """The made-up project. What follows from ERM no longer fits once ERM is trained."""
    return own_artefacts


def test_the_folder_holds_what_it_says(project: Project) -> None:
    folder = tiny.train_erm(project)
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert {"train_loss", "val_worst", "val_mean", "val_landbird_land", "val_waterbird_water"} <= history[
        0
    ].keys()
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
    assert not list((project.data / "scratch").iterdir())


def test_the_model_says_how_it_was_made_and_can_be_built_again(project: Project) -> None:
    tiny.train_erm(project)
    with project.open("images", "erm") as given:
        erm = given.model("erm")
        assert erm.spec == made_up.SPEC
        assert erm.provenance.params == {
            "model": tiny.MODEL.model_dump(),
            "train": {**tiny.TRAIN.model_dump(exclude={"keep_epochs"}), "crop_scale": [0.7, 1.0]},
            "input": {"input_size": 64, "to_input": "center_crop"},
            "selection": {"criterion": "groups"},
        }
        assert erm.provenance.made_from == given.digests("images")
        assert not classifier.load(erm.spec, erm.read(), torch.device("cpu")).training


def test_training_again_gives_the_same_bytes(project: Project) -> None:
    erm, again = tiny.train_erm(project), tiny.train_erm(project, "again")
    for file in erm.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_what_is_kept_is_what_a_training_up_to_that_epoch_says_and_changes_nothing_else(
    project: Project,
) -> None:
    constant = {"schedule": "constant", "hold_out": 0.25}
    none = tiny.train_erm(project, "none", **constant)
    erm = tiny.train_erm(project, keep_epochs=[1, 2], **constant)
    for file in none.iterdir():
        if file.name != "model.json":
            assert (erm / file.name).read_bytes() == file.read_bytes(), file.name
    tiny.train_erm(project, "first", epochs=1, **constant)
    with project.open("images", "erm") as given:
        kept, rows = given.model("erm").read("early"), given.rows("train")
        pixels = torch.from_numpy(given.file("images")["image"][:][rows])
    assert (kept["epoch"].tolist(), kept["erm"]) == ([1, 2], 2)
    assert (kept["logits"].shape, kept["logits"].dtype) == ((2, len(rows), 2), np.float32)
    for logits, name in zip(kept["logits"], ("first", "none"), strict=True):
        found = store.open_model(project.data / name, "erm", "")
        assert found.sets == {"model", "best"}
        model = classifier.load(found.spec, found.read(), torch.device("cpu"))
        with torch.no_grad():
            expected = model(model.input(to_input_grid(pixels, found.spec)))
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
    file = erm / "early.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + bytes(4))
    with pytest.raises(MacError, match="early.safetensors: truncated or changed"), project.open("erm"):
        pass


class _KilledError(BaseException):
    """Stands for a kill: no handler of the code under test takes it."""


def test_one_that_was_killed_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    original, epochs = Checkpoint.write, []

    def cut_off(self: Checkpoint, path: Path) -> None:
        original(self, path)
        epochs.append(len(self.epochs))
        if epochs == [1]:
            raise _KilledError

    whole = tiny.train_erm(project, "whole", keep_epochs=[1, 2])
    monkeypatch.setattr(Checkpoint, "write", cut_off)
    with pytest.raises(_KilledError):
        tiny.train_erm(project, "pieces", keep_epochs=[1, 2])
    assert not (project.data / "pieces").exists()
    pieces = tiny.train_erm(project, "pieces", keep_epochs=[1, 2])
    assert (whole / "early.safetensors").exists()
    assert epochs == [1, 2]  # no epoch was trained twice
    for file in whole.iterdir():
        assert (pieces / file.name).read_bytes() == file.read_bytes(), file.name


def test_select_names_the_epoch_that_is_the_model(project: Project) -> None:
    last, best = tiny.train_erm(project, "last"), tiny.train_erm(project, "best", select="best")
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics["epoch"] == metrics["best_epoch"]
    assert (best / "last.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()
    assert (best / "model.safetensors").read_bytes() == (last / "best.safetensors").read_bytes()
    assert not (best / "best.safetensors").exists()


def test_without_groups_no_attribute_is_read(project: Project, tmp_path: Path) -> None:
    """The same images, of which every attribute is known or none is: the same epoch, bit for bit."""
    erased = made_up.write(tmp_path / "erased", spec=replace(made_up.SPEC, attributes=()))
    selection = SelectionParams(criterion="soft_errors")
    told, untold = (tiny.train_erm(each, selection=selection, select="best") for each in (project, erased))
    for file in ("model.safetensors", "last.safetensors"):
        assert (told / file).read_bytes() == (untold / file).read_bytes()
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (told, untold))
    assert first["criterion"] == second["criterion"] == "soft_errors"
    assert first["best_epoch"] == second["best_epoch"]
    assert first["val"].keys() == {"worst_group", "raw_mean", "adjusted_mean", "groups"}
    assert second["val"].keys() == {"worst_class", "raw_mean", "classes"}
    with pytest.raises(MacError, match="selection.criterion: groups needs the spurious attribute of every"):
        tiny.train_erm(erased, selection=SelectionParams(criterion="groups"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_earlier_model(project: Project) -> None:
    before = (tiny.train_erm(project) / "model.safetensors").read_bytes()
    with pytest.raises(MacError, match=r"train: the loss is (nan|inf) in epoch 1, batch 2; lower train\.lr"):
        tiny.train_erm(project, lr=1e30)
    assert (project.data / "erm/model.safetensors").read_bytes() == before


def test_an_input_that_cannot_be_cut_out_of_the_stored_images_is_refused(project: Project) -> None:
    params = tiny.TRAIN.model_copy(update={"epochs": 1})
    large = InputParams(input_size=80, to_input="center_crop")
    context, out = tiny.context(project.data), project.data / "erm"
    with project.open("images") as given:
        message = "dataset.input_size: a centre crop of 80 does not fit in stored_size 72; lower it"
        with pytest.raises(MacError, match=message):
            train(given, out, large, tiny.MODEL, params, AUTO, context)
        train(given, out, large.model_copy(update={"to_input": "resize"}), tiny.MODEL, params, AUTO, context)
    with project.open("images", "erm") as given:
        assert given.model("erm").spec.input_size == 80


def test_pretrained_weights_are_part_of_the_provenance(project: Project) -> None:
    state = load_file(tiny.train_erm(project) / "model.safetensors")
    weights = project.data / "weights.safetensors"
    prefix = "trunk."
    trunk = {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
    save_file(trunk, weights)
    model = tiny.MODEL.model_copy(update={"weights": str(weights)})
    params = tiny.TRAIN.model_copy(update={"epochs": 1})
    with project.open("images") as given:
        train(given, project.data / "erm", tiny.INPUTS, model, params, AUTO, tiny.context(project.data))
    with project.open("images", "erm") as given:
        assert given.model("erm").provenance.made_from["weights"] == store.file_digest(weights)


def test_an_input_size_that_the_network_does_not_take_is_refused(project: Project) -> None:
    pytest.importorskip("timm")
    network = tiny.MODEL.model_copy(update={"architecture": "timm/inception_v3"})
    with (
        project.open("images") as given,
        pytest.raises(MacError, match=r"timm/inception_v3 does not take 64 pixels \(.*\); change "),
    ):
        Training(given, network, tiny.INPUTS, tiny.TRAIN, torch.device("cpu"))
