"""mac doctor says what is there, what is missing, and what the stages will need."""

import json

from pipeline import project
from stages import LOCK
from tests.conftest import Project
from tests.pipeline.tools.test_checks import params_of


def test_a_project_that_is_well(own_artefacts: project.Project) -> None:
    params_of(own_artefacts)
    mac = Project(own_artefacts.data.parent)
    text = mac.succeed("doctor", "--device", "cpu").stdout
    for word in (
        "Python: 3",
        "work together",
        "HDF5",
        "device: CPU",
        "parameters",
        "dataset",
        "disk",
        "features",
    ):
        assert word in text
    found = json.loads(mac.succeed("doctor", "--device", "cpu", "--json").stdout)
    assert {each["state"] for each in found["findings"]} <= {"ok", "warning"}
    assert [each["stage"] for each in found["stages"]] == [
        "prepare",
        "train",
        "saliency",
        "masks",
        "originals",
        "features",
        "sweep",
        "retrain",
    ]


def test_what_is_wrong_is_named_and_fails(own_artefacts: project.Project) -> None:
    nowhere = str(own_artefacts.data / "nowhere")
    params = params_of(own_artefacts, model__weights="nowhere.safetensors", dataset__root=nowhere)
    (params.parent / LOCK).write_text("version: '0.0.9'\n")
    result = Project(params.parent).run("doctor", "--device", "cpu")
    assert result.exit_code == 1
    assert "error    weights: model.weights: nowhere.safetensors: no such file or directory" in result.stdout
    assert "nowhere" in result.stdout.partition("error    dataset:")[2]
    assert "error    mac.lock: written by mac-robust 0.0.9, here is " in result.stdout
    assert "; run 'mac upgrade'\n" in result.stdout.partition("error    mac.lock:")[2]
