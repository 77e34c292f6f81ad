"""mac.lock: its digests change with the code of a stage, and a stage of other code is refused."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.demo import waterbirds_layout
from pipeline.errors import MacError
from stages import LOCK, code, lock
from stages.dvc_files import FILES
from stages.tools import demo
from tests.conftest import REPOSITORY

EDITED = ("steps/retrain.py", "steps/report/page/style.css", "datasets/celeba.py", "metrics.py", "graph.py")


def depending_on(file: str) -> set[str]:
    """The stages that depend on a file in the repository's DVC files, by itself or in a folder."""
    found = set()
    for dvc_file in FILES.values():
        for name, stage in YAML(typ="safe").load(REPOSITORY / dvc_file)["stages"].items():
            if any(Path(file).is_relative_to(dep) for dep in stage["deps"]):
                found.add(name)
    return found


def test_the_digests_that_change_are_those_of_the_stages_that_depend_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code.digests()
    shutil.copytree(REPOSITORY / "pipeline", tmp_path / "pipeline")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert code.digests() == before  # it is no question of where the code lies
    for name in EDITED:
        file = tmp_path / "pipeline" / name
        old = file.read_bytes()
        file.write_bytes(old + b"\n")
        now = code.digests()
        changed = {stage for stage, digest in now.items() if before[stage] != digest} - {"demo"}
        assert changed == depending_on(f"pipeline/{name}"), name
        file.write_bytes(old)
    assert {"retrain", "study-run"} == depending_on("pipeline/steps/retrain.py")


def test_other_code_of_the_stage_is_refused_and_that_of_others_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock.require("retrain", tmp_path)  # no mac.lock
    here = lock.installed()
    (tmp_path / LOCK).write_text(here.text())
    assert lock.read(tmp_path) == here
    lock.require("retrain", tmp_path)
    with caplog.at_level(logging.WARNING, logger="mac"):
        (tmp_path / LOCK).write_text(here.model_copy(update={"version": "0.0.9"}).text())
        lock.require("retrain", tmp_path)
    assert "written by mac-robust 0.0.9" in caplog.text
    assert "same code of stage retrain; run 'mac upgrade'" in caplog.text
    other = {"code": "0" * 16, "stages": {**here.stages, "retrain": "0" * 16}}
    (tmp_path / LOCK).write_text(here.model_copy(update=other).text())
    with pytest.raises(MacError, match="with other code of stage retrain; run 'mac upgrade'"):
        lock.require("retrain", tmp_path)
    lock.require("sweep", tmp_path)


def test_mac_demo_refuses_other_code_of_the_painting_in_its_project_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[Path] = []
    monkeypatch.setattr(waterbirds_layout, "write", lambda folder, *_, **__: painted.append(folder))
    here, raw = lock.installed(), tmp_path / "data/raw"
    raw.mkdir(parents=True)
    (tmp_path / LOCK).write_text(here.text())
    monkeypatch.chdir(raw)  # as DVC does
    assert CliRunner().invoke(demo.command, ["demo"]).exit_code == 0
    other = {"code": "0" * 16, "stages": {**here.stages, "demo": "0" * 16}}
    (tmp_path / LOCK).write_text(here.model_copy(update=other).text())
    said = CliRunner().invoke(demo.command, ["demo"]).exception
    assert "with other code of stage demo; run 'mac upgrade'" in str(said)
    assert CliRunner().invoke(demo.command, ["elsewhere"]).exit_code == 0
    assert painted == [Path("demo"), Path("elsewhere")]


def test_what_python_and_editors_leave_changes_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = subprocess.run(["git", "ls-files", "pipeline"], cwd=REPOSITORY, stdout=-1, text=True).stdout
    assert {Path(name).suffix for name in listed.splitlines()} == code.SUFFIXES
    folder = tmp_path / ".venv/pipeline"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "a.py").write_text("a")
    monkeypatch.setattr(code, "ROOT", tmp_path / ".venv")
    before = code._digest(["pipeline"])
    for name in ("__pycache__/a.cpython-311.pyc.140", "a.py~", "a.py.swp", ".#a.py", ".b/a.py", "4913"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("b")
    assert code._digest(["pipeline"]) == before
    (folder / "b.py").write_text("b")
    assert code._digest(["pipeline"]) != before


def test_the_doctor_says_what_mac_lock_says_of_other_code(tmp_path: Path) -> None:
    here, file = lock.installed(), tmp_path / LOCK
    file.write_text(here.text())
    assert lock.finding(tmp_path).state == "ok"
    file.write_text(here.model_copy(update={"version": "0.0.9"}).text())
    found = lock.finding(tmp_path)
    assert (found.state, found.remedy) == ("warning", "run 'mac upgrade'")
    assert found.found.startswith("written by mac-robust 0.0.9, here is ")
    other = {"code": "0" * 16, "stages": {**here.stages, "retrain": "0" * 16, "study": "0" * 16}}
    file.write_text(here.model_copy(update=other).text())
    found = lock.finding(tmp_path)
    assert (found.state, found.remedy) == ("error", "run 'mac upgrade'")
    assert found.found.endswith(", with other code of retrain, study")
    file.write_text("[")
    assert lock.finding(tmp_path).state == "error"


@pytest.mark.parametrize("text", ["version: 1", "[", "stages: [a]", "more: a"])
def test_a_damaged_one_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(MacError, match="mac.lock"):
        lock.read(tmp_path)
