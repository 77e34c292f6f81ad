"""A stage reads what its entry in the list says, and nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from pipeline import graph
from pipeline.compute import code
from pipeline.project import Opened
from stages import frame
from tests import cached
from tests.conftest import COMPARED, STAGES, Project, default_params

BOTH = (*STAGES, *COMPARED)
WITH_PARAMS = [name for name in BOTH if graph.stage(name).params]
# Other values for the keys of params.yaml that are not numbers.
OTHERS: dict[str, Any] = {
    "dataset.name": "waterbirds",
    "dataset.root": "elsewhere",
    "dataset.to_stored": "center_crop",
    "dataset.stored_size": 80,
    "dataset.input_size": 48,
    "dataset.to_input": "resize",
    "dataset.interpolation": "bicubic",
    "dataset.range": 4095,
    "dataset.storage": "encoded",
    "dataset.on_error": "skip",
    "dataset.on_duplicates": "warn",
    "model.architecture": "resnet18",
    "model.weights": "IMAGENET1K_V1",
    "model.classifier": None,  # it contradicts others
    "model.classes": None,
    "model.normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "train.schedule": "constant",
    "train.crop_scale": [0.5, 0.9],
    "train.precision": "bfloat16",
    "train.select": "best",
    "train.hold_out": 0.2,
    "train.keep_epochs": [1],
    "features.storage": "float16",
    "retrain.memory": "streamed",
    "sweep.pick": "criterion",
    "sweep.default": [2, 2],
    "retraining_set.balance": "class",
    "saliency.method": "random",
    "saliency.target": "prediction",
    "saliency.layer": "stage2",
    "saliency.size": "knee",
    "saliency.side": "rest",
    "saliency.precision": "bfloat16",
    "saliency.external": "elsewhere",
    "features.precision": "bfloat16",
    "retrain.solver": "lbfgs",
    "selection.criterion": "worst_class",
    "retrain.init": "zeros",
    "retrain.class_weights": "none",
    "baselines.methods": ["erm"],
    "sweep.alphas": [5],
    "sweep.betas": [6, 7],
    "sweep.l2s": [8],
    "study.seeds": [9],
    "study.variants": {"other": {}},
    "study.threads": 2,
    "tracking.to": "tensorboard",
}


@pytest.fixture(scope="module")
def compared(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project with the artefacts of the second pipeline."""
    project = finished.copied(tmp_path_factory.mktemp("compared") / "project")
    for stage in COMPARED:
        project.succeed(stage)
    return project


@pytest.fixture
def project(compared: Project, tmp_path: Path) -> Project:
    """A copy of it, to be changed at will."""
    return compared.copied(tmp_path / "project")


def changed(key: str, value: Any) -> Any:
    if key in OTHERS:
        return OTHERS[key]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 0.5


def contents(project: Project, stage: str) -> Mapping[str, bytes]:
    """The files that a stage has made."""
    found = {}
    for made in graph.stage(stage).makes:
        path = project.data / made.path
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found[str(file)] = file.read_bytes()
    return found


@pytest.mark.parametrize("stage", WITH_PARAMS)
def test_parameters_that_a_stage_does_not_declare_change_nothing(project: Project, stage: str) -> None:
    declared = {f"{model.block}.{key}" for model in graph.stage(stage).models() for key in model.model_fields}
    yaml = YAML(typ="safe")
    values = yaml.load(project.params_file)
    for block, keys in values.items():
        for key, value in keys.items():
            dotted = f"{block}.{key}"
            if dotted not in declared and dotted != "dataset.options":
                keys[key] = changed(dotted, value)
    if stage == "prepare":
        values["dataset"]["input_size"] = 48  # a crop that fits
    yaml.dump(values, project.params_file)
    before = contents(project, stage)
    project.succeed(stage)
    assert contents(project, stage) == before


def test_retraining_by_adam_asks_for_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path)
    cached.write(project.data)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(retrain__seeds=1, retrain__average=1, retrain__epochs=1, sweep__alphas=[0], sweep__betas=[0])
    project.set(sweep__seeds=1, sweep__average=1, sweep__pick="criterion")
    project.succeed("sweep")
    project.set(retrain__alpha=1, retrain__beta=1)
    alone = "this process computes alone, without workers"
    with monkeypatch.context() as patched:
        patched.setenv("DASK_SCHEDULER_ADDRESS", "nowhere")
        project.succeed("retrain", "--device", "cpu")
        assert alone not in caplog.text
        project.set(retrain__solver="lbfgs")
        assert "scheduler nowhere: should be tcp://host:port" in project.fail("retrain")
    project.set(retrain__solver="adam")
    project.succeed("retrain", "--workers", "1")
    assert alone in caplog.text


@pytest.mark.parametrize("stage", BOTH)
def test_a_stage_opens_what_it_declares_and_uses_all_of_it(
    project: Project, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else retrain does not look into the sweep, nor the sweep at the diagnosis.
    project.set(retrain__alpha="auto", retrain__beta="auto", selection__criterion="soft_errors")
    used = set()

    def recorded(kind: str) -> None:
        plain = getattr(Opened, kind)

        def access(given: Opened, name: str, *keys: str) -> Any:
            if given.project.path(name).resolve() == (project.data / graph.KINDS[name].path).resolve():
                used.add(name)  # ablation has other maps too, which it made
            return plain(given, name, *keys)

        monkeypatch.setattr(Opened, kind, access)

    for kind in ("file", "model", "table", "stated"):
        recorded(kind)
    project.succeed(stage)
    assert used == set(graph.stage(stage).needs)


def test_a_time_is_recorded_beside_the_artefacts(finished: Project) -> None:
    assert {path.stem for path in (finished.data / "timings").iterdir()} == set(STAGES)
    assert (
        json.loads((finished.data / "timings/train.json").read_text())["threads"] == torch.get_num_threads()
    )


def test_a_stage_whose_code_is_edited_while_it_runs_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else DVC would note the new code as what made the artefact."""
    now = {**code._LOADED, "pipeline.results.scores": b"# edited"}
    monkeypatch.setattr(code, "_on_disk", lambda: now)
    said = project.fail("evaluate")
    assert "evaluate: pipeline.results.scores changed while it ran" in said
    project.succeed("retrain")  # does not use it


def test_where_there_is_no_browser_open_says_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = list[str]()

    def browse(uri: str) -> bool:
        opened.append(uri)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", browse)
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    page = tmp_path / "report.html"
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    frame._show(page)
    assert opened == []
    assert f":{page} to where one is" in capsys.readouterr().out
    monkeypatch.setenv("BROWSER", "code")  # an editor that is connected passes pages on
    frame._show(page)
    assert (opened, capsys.readouterr().out) == ([page.as_uri()], "")
    frame._show(page)  # this time it cannot be opened
    assert f":{page} to where one is" in capsys.readouterr().out


def test_a_time_that_cannot_be_recorded_fails_no_stage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timings").touch()
    with frame._recorded(tmp_path, "train", "cpu"):
        pass
    message = f"train is done, but its time is not recorded: {tmp_path}/timings/train.json: cannot be written"
    assert caplog.messages[0].startswith(message)
