"""A network that plain PyTorch code has trained, brought with its head: the pipeline trains nothing."""

import csv
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms import v2

from pipeline import project, store
from pipeline.errors import MacError
from pipeline.network.training import Training
from pipeline.params.model import ModelParams
from pipeline.spec import Normalization
from pipeline.steps.train import train
from tests import made_up, tiny
from tests.cached import AUTO
from tests.conftest import Project
from tests.pipeline.tools.test_checks import by_name, checks, params_of

State = dict[str, Tensor]

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.15))
ORDER = ("waterbird", "landbird")  # of the script's outputs


@dataclass
class Trained:
    """What the script has: its network, the validation images as it sees them, and their classes."""

    network: nn.Module
    x: Tensor
    label: Tensor

    def accuracy(self, state: State) -> float:
        """The share of the validation images that the network gets right with these tensors."""
        self.network.load_state_dict(state)
        with torch.no_grad():
            return float((self.network(self.x).argmax(1) == self.label).float().mean())


@pytest.fixture(scope="module")
def trained(artefacts: project.Project) -> Trained:
    """The script: it knows image files and torchvision, and nothing of the pipeline."""
    look = v2.Compose(
        [
            v2.ToImage(),
            v2.CenterCrop(64),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(NORMALIZATION.mean, NORMALIZATION.std),
        ]
    )
    files = sorted((artefacts.data.parent / "raw").glob("*.png"))
    x = torch.stack([look(Image.open(file)) for file in files])
    label = 1 - torch.arange(len(files)) // 2 % 2  # a waterbird is 0
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=2)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for _ in range(12):
        optimizer.zero_grad()
        F.cross_entropy(network(x[:16]), label[:16]).backward()
        optimizer.step()
    with torch.no_grad():
        for _ in range(15):
            network(x[:16])  # the running means and variances come up to the weights
    network.eval()
    return Trained(network, x[16:24], label[16:24])


def half(state: State) -> State:
    return {name: each.half() if each.is_floating_point() else each for name, each in state.items()}


def named(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": each for name, each in state.items()}


def model_params(file: Path, **changes: object) -> ModelParams:
    found = {"classifier": str(file), "classes": list(ORDER), "normalization": NORMALIZATION, **changes}
    return tiny.MODEL.model_copy(update=found)


def convert(given: project.Project, file: Path, **changes: object) -> Path:
    """Run stage train on a classifier; the model folder."""
    params, context = tiny.TRAIN.model_copy(update={"select": "best"}), tiny.context(given.data)
    with given.open("images") as opened:
        model = model_params(file, **changes)
        train(opened, given.data / "erm", tiny.INPUTS, model, params, AUTO, context)
    return given.data / "erm"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("own.pth", lambda state: {"state_dict": named("module.", state), "best": np.float64(0.9)}),
        ("own.pt", lambda state: {"model": half(state)}),
        ("own.ckpt", lambda state: {"state_dict": named("model.", state), "epoch": 3}),
        ("own.safetensors", lambda state: state),
    ],
)
def test_four_wrappings_of_one_network_are_one_erm(
    own_artefacts: project.Project, trained: Trained, tmp_path: Path, name: str, form: Callable[[State], Any]
) -> None:
    state = {key: each.clone() for key, each in trained.network.state_dict().items()}
    expected = {key: each.to(state[key].dtype) for key, each in half(state).items()}
    if name != "own.pt":
        expected = state
    (save_file if name == "own.safetensors" else torch.save)(form(state), tmp_path / name)
    folder = convert(own_artefacts, tmp_path / name)
    found = load_file(folder / "model.safetensors")
    for key in state:
        if not key.startswith("fc."):
            assert torch.equal(found[f"trunk.{key}"], expected[key]), key
    for key in ("weight", "bias"):
        assert torch.equal(found[f"head.{key}"], expected[f"fc.{key}"].flip(0))  # the dataset's order
    metrics = json.loads((folder / "metrics.json").read_text())
    val = metrics["val"]["groups"].values()
    assert sum(val) / 4 == pytest.approx(trained.accuracy(expected))  # groups of the same size
    assert trained.accuracy(expected) > 0.5
    assert (metrics["epoch"], metrics["best_epoch"]) == (0, 0)
    (row,) = csv.DictReader((folder / "history.csv").read_text().splitlines())
    assert (row["epoch"], float(row["val_worst"])) == ("0", metrics["val"]["worst_group"])
    assert {each.name for each in folder.iterdir()} == {
        *("model.json", "model.safetensors", "history.csv", "metrics.json")
    }
    with own_artefacts.open("images", "erm") as given:
        erm = given.model("erm")
        assert erm.spec.normalization == NORMALIZATION
        assert erm.provenance.made_from["classifier"] == store.file_digest(tmp_path / name)
        assert given.erm_labels == "none"  # train.select chose nothing here


def test_what_follows_works_without_a_training(
    own_artefacts: project.Project,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Up to MaC's head, and to the two methods that train the whole network anew."""
    mac, file = Project(own_artefacts.data.parent), own_artefacts.data.parent / "own.pth"
    torch.save(trained.network.state_dict(), file)
    params_of(
        own_artefacts,
        model__classifier=str(file),
        model__classes=list(ORDER),
        model__normalization={"mean": list(NORMALIZATION.mean), "std": list(NORMALIZATION.std)},
        train__precision="float32",
        retrain__seeds=1,
        retrain__average=1,
        sweep__seeds=1,
        sweep__betas=[0, 1],
        jtt__first_epochs=1,
        jtt__epochs=1,
    )
    with monkeypatch.context() as patched:
        patched.setattr("torch.optim.SGD.step", lambda _: pytest.fail("trained"))
        for stage in ("train", "saliency", "masks", "originals", "features", "sweep", "retrain"):
            mac.succeed(stage)
    assert "own.pth: took the head 'fc'" in caplog.text
    right = round(8 * trained.accuracy(trained.network.state_dict()))
    assert f"own.pth is right about {right} of 8 validation images" in caplog.text
    with own_artefacts.open("images", "erm", "features", "retrained") as given:
        erm, retrained = given.model("erm"), given.model("retrained")
        assert retrained.spec == erm.spec
        assert not np.array_equal(erm.head().weight, retrained.head().weight)
        with torch.no_grad():
            pooled = trained.network.conv5(_before_conv5(trained.network, trained.x)).mean((2, 3))
        found = given.file("features")["val/original"][:]
        np.testing.assert_allclose(found, pooled.numpy(), rtol=1e-3, atol=1e-4)
    mac.succeed("jtt")
    assert "jtt: starts from model.weights (none), not from model.classifier" in caplog.text
    mac.succeed("masktune")
    jtt = load_file(own_artefacts.path("jtt") / "model.safetensors")
    assert not torch.allclose(
        jtt["head.weight"], trained.network.state_dict()["fc.weight"].flip(0), atol=0.01
    )


def _before_conv5(network: nn.Module, x: Tensor) -> Tensor:
    for name in ("conv1", "maxpool", "stage2", "stage3", "stage4"):
        x = network.get_submodule(name)(x)
    return x


def test_a_normalisation_holds_for_a_network_that_is_trained_here_too(artefacts: project.Project) -> None:
    model = tiny.MODEL.model_copy(update={"normalization": NORMALIZATION})
    with artefacts.open("images") as given:
        training = Training(given, model, tiny.INPUTS, tiny.TRAIN, torch.device("cpu"))
        assert training.spec().normalization == NORMALIZATION
        assert training.model.trunk.normalization == NORMALIZATION


def test_a_wrong_order_of_classes_is_warned_of(
    own_artefacts: project.Project, trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(trained.network.state_dict(), tmp_path / "own.pth")
    with caplog.at_level(logging.INFO, logger="mac"):
        convert(own_artefacts, tmp_path / "own.pth", classes=None)
    (warning,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert "no more than to answer always with the most frequent class (0.500); are model.classes" in warning


def test_doctor_checks_it_without_a_training(
    own_artefacts: project.Project, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tools.estimate.TRIAL", 0)
    file = tmp_path / "own.pth"
    torch.save({"model": trained.network.state_dict()}, file)
    params = params_of(own_artefacts, model__classifier=str(file))
    findings, needs = checks.project(params, own_artefacts.data, "cpu")
    assert by_name(findings)["classifier"].found == f"{file}: fits, and is not trained"
    assert {each.stage: each.seconds for each in needs}["train"] < 1
    params = params_of(own_artefacts, model__classifier=str(file), model__classes=["0", "2"])
    findings, _ = checks.project(params, own_artefacts.data, "cpu")
    assert by_name(findings)["classifier"].state == "error"
    assert "model.classes should have" in by_name(findings)["classifier"].found


def test_a_file_that_is_missing_is_one_line(own_artefacts: project.Project) -> None:
    with pytest.raises(MacError, match="model.classifier: nowhere.pth: no such file or directory"):
        convert(own_artefacts, Path("nowhere.pth"))
    assert made_up.SPEC.classes == ("landbird", "waterbird")  # ORDER is the other way round
