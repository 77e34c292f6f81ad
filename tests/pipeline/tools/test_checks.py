"""What is there, what is missing, and what the stages will need."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import features
from ruamel.yaml import YAML

from pipeline import params_file
from pipeline.datasets import read
from pipeline.params.dataset import DatasetParams
from pipeline.project import Project
from pipeline.store import SPLITS
from pipeline.tools import checks, estimate
from pipeline.tools.checks import Finding
from pipeline.tools.estimate import Need, most_on_disk
from tests import made_up, tiny
from tests.conftest import default_params


def params_of(project: Project, **changes: Any) -> Path:
    """A params.yaml of the made-up project, beside its data folder, for the reader `folder`."""
    raw = project.data.parent / "raw"
    with project.open("images") as given, (raw / "metadata.csv").open("w", newline="") as file:
        images = given.file("images")
        writer = csv.writer(file)
        writer.writerow(["path", "label", "place", "split"])
        for row in range(made_up.COUNT):
            label, place = images["label"][row], images["attribute"][row]
            writer.writerow([f"{row:02}.png", label, place, SPLITS[images["split"][row]]])
    values = default_params()
    values["dataset"] |= {
        "name": "folder",
        "root": str(raw),
        "options": {"metadata": "metadata.csv", "attribute": "place"},
        "stored_size": 72,
        "input_size": 64,
    }
    values["model"] |= {"architecture": "shufflenet_v2_x0_5", "weights": "none"}
    values["features"]["draws"] = made_up.DRAWS
    values["train"]["batch_size"] = 4
    for key, value in changes.items():
        block, name = key.split("__")
        values[block][name] = value
    file_of_params = project.data.parent / "params.yaml"
    YAML(typ="safe").dump(values, file_of_params)
    return file_of_params


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {each.what: each for each in findings}


def test_this_machine_is_well() -> None:
    found = by_name(list(checks.machine("cpu")))
    assert found["Python"].found.startswith("3.")
    assert "work together" in found["torch and torchvision"].found
    assert "HDF5" in found["HDF5"].found
    assert "libwebp" in found["WebP"].found
    assert found["device"].found.startswith("CPU, ")
    assert {each.state for each in found.values()} <= {"ok", "warning"}


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    device = by_name(list(checks.machine("cuda:9")))["device"]
    assert device.state == "error"
    assert "cuda:9" in device.found


def test_a_device_that_is_not_there_is_told_once(
    own_artefacts: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    findings, estimates = checks.project(params_of(own_artefacts), own_artefacts.data, "cuda:9")
    assert [(each.state, each.what) for each in findings] == [("ok", "parameters"), ("ok", "dataset")]
    assert not estimates


@pytest.mark.parametrize(
    ("said", "state", "found"),
    [
        ("Cache types: <https://error.dvc.org/no-dvc-cache>\nCaches: local", "ok", "nothing is cached yet"),
        ("Cache types: hardlink, symlink\nCaches: local", "ok", "links by hardlink, symlink"),
        ("Caches: local\nCache types: https://error.dvc.org/no-links", "warning", "can only copy"),
        ("DVC version: 3.67.1 (pip)", "warning", "in no DVC repository"),
    ],
)
def test_what_dvc_says_of_its_cache(said: str, state: str, found: str) -> None:
    about = checks._cache(said)
    assert about.state == state
    assert found in about.found


def test_a_folder_without_git_or_dvc_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (found,) = checks._repository(folder)
    assert (found.state, found.found) == ("warning", "none here, so 'dvc repro' cannot run")
    (tmp_path / ".dvc").mkdir()
    (found,) = checks._repository(folder)
    assert (found.state, found.found) == ("warning", f"{tmp_path} is in no git repository")
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    assert not list(checks._repository(folder))
    (tmp_path / ".dvc" / "config").write_text("")
    (tmp_path / ".git").mkdir()
    assert not list(checks._repository(folder))


def test_a_package_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    found = by_name(list(checks.machine("cpu")))["HDF5"]
    assert (found.state, found.remedy) == ("error", "make install")
    assert "h5py" in found.found


def test_a_project_that_is_well(own_artefacts: Project) -> None:
    params = params_of(own_artefacts)
    findings, estimates = checks.project(params, own_artefacts.data, "cpu")
    found = by_name(findings)
    assert list(found) == ["parameters", "dataset", "network", "disk"]
    assert "36 images, classes 0, 1; spurious attribute 0, 1" in found["dataset"].found
    assert {each.state for each in findings} <= {"ok", "warning"}
    needed = {each.stage: each for each in estimates}
    cached = ["saliency", "masks", "originals", "features"]
    assert list(needed) == ["prepare", "train", *cached, "sweep", "retrain"]
    for stage, name in (("prepare", "images"), ("originals", "originals"), ("features", "features")):
        there = own_artefacts.path(name).stat().st_size
        assert there / 2 < needed[stage].bytes < 2 * there
    with own_artefacts.open("maps") as given:
        maps = given.file("maps")
        there = sum(maps[name].size * maps.stored(name).itemsize for name in maps)
    assert needed["saliency"].bytes == there
    assert all(each.seconds > 0 for each in estimates)


def test_what_is_wrong_is_named(own_artefacts: Project) -> None:
    data = own_artefacts.data
    params = params_of(
        own_artefacts, model__weights="nowhere.safetensors", dataset__root=str(data / "nowhere")
    )
    findings, estimates = checks.project(params, data, "cpu")
    found = by_name(findings)
    message = "model.weights: nowhere.safetensors: no such file or directory"
    assert found["weights"] == Finding("error", "weights", message)
    assert found["dataset"].state == "error"
    assert "nowhere" in found["dataset"].found
    assert not estimates
    params.write_text("dataset: 3\n")
    findings, _ = checks.project(params, data, "cpu")
    assert [(each.state, each.what) for each in findings] == [("error", "parameters")]
    assert "params.yaml: dataset: " in findings[0].found


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ("IMAGENET1K_V1", ("ok", "IMAGENET1K_V1")),
        (
            "IMAGENET1K_V9",
            ("error", "model.weights: 'IMAGENET1K_V9' is neither none, nor a file, nor torchvision "),
        ),
        ("weights.tar", ("error", "model.weights: weights.tar: no such file or directory")),
    ],
)
def test_weights_are_checked_without_a_download(weights: str, found: tuple[str, str]) -> None:
    (finding,) = checks._weights(tiny.MODEL.model_copy(update={"weights": weights}), tiny.INPUTS)
    assert (finding.state, finding.what) == (found[0], "weights")
    assert finding.found.startswith(found[1])


def test_what_is_wrong_with_the_network_is_not_blamed_on_the_dataset(own_artefacts: Project) -> None:
    params = params_of(own_artefacts, model__architecture="nonet")
    findings, estimates = checks.project(params, own_artefacts.data, "cpu")
    found = by_name(findings)
    assert (found["dataset"].state, found["network"].state) == ("ok", "error")
    assert "nonet" in found["network"].found
    assert not estimates


def test_a_trial_that_fails_is_told(own_artefacts: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much")

    monkeypatch.setattr("pipeline.tools.estimate.training_rate", fail)
    findings, estimates = checks.project(params_of(own_artefacts), own_artefacts.data, "cpu")
    found = by_name(findings)["network"]
    assert (found.state, found.found) == ("error", "shufflenet_v2_x0_5: CUDA out of memory.")
    assert not estimates


def test_an_image_that_cannot_be_read_is_the_dataset_s(own_artefacts: Project) -> None:
    params = params_of(own_artefacts)
    (own_artefacts.data.parent / "raw" / "00.png").write_bytes(b"")
    findings, _ = checks.project(params, own_artefacts.data, "cpu")
    assert [each.what for each in findings if each.state == "error"] == ["dataset"]
    assert "00.png" in by_name(findings)["dataset"].found


def test_what_a_dataset_leaves_out_is_a_warning(own_artefacts: Project) -> None:
    params, raw = params_of(own_artefacts), own_artefacts.data.parent / "raw"
    for number in range(20):
        place = raw / "tree" / "ab"[number % 2] / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((raw / f"{number:02}.png").read_bytes())
    (raw / "tree" / "a" / "notes.txt").write_text("")
    values = YAML(typ="safe").load(params)
    values["dataset"] |= {"root": str(raw / "tree"), "options": {"metadata": None}}
    YAML(typ="safe").dump(values, params)
    findings, _ = checks.project(params, own_artefacts.data, "cpu")
    of_dataset = [(each.state, each.found) for each in findings if each.what == "dataset"]
    assert of_dataset[0][0] == "ok"
    assert of_dataset[1:] == [("warning", "not used: 1 .txt (a 1)")]


def test_masks_from_files_are_looked_for(own_artefacts: Project) -> None:
    """In the folder of the images, where each is called as its mask would be; and where there are none."""
    raw, empty = own_artefacts.data.parent / "raw", own_artefacts.data
    missing = "24 of 24 images have no mask, such as 00.png, 01.png, 02.png"
    draws = "; stage saliency draws the training images that need one too"
    for folder, balance, on_error, state, found in (
        (raw, "none", "fail", "ok", ": the 24 training and validation images have one"),
        (raw, "class", "fail", "ok", f": the 8 validation images have one{draws}"),
        (empty, "none", "fail", "error", missing),
        (empty, "none", "skip", "warning", missing),
        (empty / "nowhere", "none", "skip", "error", "no such folder"),
    ):
        masks = {"saliency__method": "external", "saliency__external": str(folder)}
        how = {"retraining_set__balance": balance, "dataset__on_error": on_error}
        params = params_of(own_artefacts, **how, **masks)
        checked = by_name(checks.project(params, own_artefacts.data, "nothing")[0])["masks"]
        assert checked.state == state
        assert found in checked.found
        assert ("dataset.on_error: skip" in checked.remedy) == (state == "warning")


def test_a_demo_that_is_not_painted_yet(own_artefacts: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_artefacts.data)
    params = params_of(own_artefacts, dataset__root=checks.PAINTED)
    findings, estimates = checks.project(params, own_artefacts.data, "cpu")
    assert "not painted yet" in by_name(findings)["dataset"].found
    assert not estimates


@pytest.mark.parametrize(("free", "state"), [(99, "error"), (120, "warning"), (151, "ok")])
def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    class Usage:
        def __init__(self, _folder: Path) -> None:
            self.free = free

    monkeypatch.setattr(checks.shutil, "disk_usage", Usage)
    for storage in ("pixels", "encoded"):
        found = checks._disk(tmp_path, 100, storage)
        assert (found.state, bool(found.remedy)) == (state, state != "ok")
        assert ("dataset.storage" in found.remedy) == (state != "ok" and storage == "pixels")


def test_encoded_images_lie_there_twice_while_prepare_runs() -> None:
    stages = [Need("prepare", 50, 1, besides=50), Need("train", 20, 1)]
    assert most_on_disk(stages) == 100
    assert most_on_disk([*stages, Need("features", 60, 1)]) == 130


def test_encoding_is_in_the_time_of_prepare(own_artefacts: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "encode", lambda image: time.sleep(0.05))
    rates = {}
    for storage in ("pixels", "encoded"):
        params = params_file.load(params_of(own_artefacts, dataset__storage=storage)).of(DatasetParams)
        rates[storage] = estimate.decoding_rate(read(params), params)
    assert rates["encoded"] < 20 < rates["pixels"]


def test_pillow_without_webp_is_told(own_artefacts: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks._webp() == Finding("ok", "WebP", f"libwebp {features.version('webp')}")
    monkeypatch.setattr(features, "version", lambda name: None)
    found = checks._webp()
    assert (found.state, found.found) == ("warning", "this Pillow was built without it")
    params = params_of(own_artefacts, dataset__storage="encoded")
    dataset = by_name(checks.project(params, own_artefacts.data, "cpu")[0])["dataset"]
    assert (dataset.state, dataset.found[:40]) == ("error", "dataset.storage: encoded needs WebP, and")


def test_units() -> None:
    assert [checks.as_bytes(each) for each in (10, 2048, 3 << 20, 5 << 30)] == [
        "10 B",
        "2 KiB",
        "3 MiB",
        "5.0 GiB",
    ]
    assert [checks.as_time(each) for each in (5, 180, 9000)] == ["5 s", "3 min", "2.5 h"]
