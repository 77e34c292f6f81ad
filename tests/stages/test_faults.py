"""Broken input and killed stages: one clear line, a non-zero exit, and what was there before stays."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import graph
from pipeline.graph import KINDS
from tests.conftest import REPOSITORY, STAGES, Project


@pytest.mark.parametrize(
    ("broken", "stage", "kept"),
    [
        ("images.h5", "train", "erm/model.safetensors"),
        ("images.h5", "saliency", "maps.h5"),
        ("erm/model.safetensors", "saliency", "maps.h5"),
        ("maps.h5", "masks", "masks.h5"),
        ("originals.h5", "features", "features.h5"),
        ("masks.h5", "features", "features.h5"),
        ("features.h5", "retrain", "retrained/model.safetensors"),
        ("retrained/model.safetensors", "evaluate", "metrics.json"),
        ("retrained/head.safetensors", "evaluate", "metrics.json"),
    ],
)
def test_a_truncated_artefact(project: Project, broken: str, stage: str, kept: str) -> None:
    before = (project.data / kept).read_bytes()
    path = project.data / broken
    os.truncate(path, path.stat().st_size * 2 // 3)
    line = project.fail(stage)
    assert str(path) in line
    assert "run 'mac " in line
    assert (project.data / kept).read_bytes() == before


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_missing_artefact_names_the_command_that_makes_it(project: Project, stage: str) -> None:
    for name in graph.stage(stage).needs:
        path = project.data / KINDS[name].path
        aside = path.rename(path.with_suffix(".aside"))
        line = project.fail(stage)
        assert str(path) in line
        assert f"; run '{KINDS[name].command}'" in line
        aside.rename(path)


def test_masks_made_by_another_backbone(project: Project) -> None:
    before = (project.data / "features.h5").read_bytes()
    project.set(train__seed=1)
    project.succeed("train")
    assert f"{project.data / 'maps.h5'}: was made from other erm" in project.fail("masks")
    assert f"{project.data / 'originals.h5'}: was made from other erm" in project.fail("features")
    assert f"{project.data / 'features.h5'}: was made from other erm" in project.fail("retrain")
    assert "was made from other erm" in project.fail("evaluate")
    assert f"{project.data / 'retrained'}: was made from other erm" in project.fail(
        "predict", str(project.params_file)
    )
    assert (project.data / "features.h5").read_bytes() == before
    for stage in STAGES[2:]:
        project.succeed(stage)


def test_features_made_with_other_masks(project: Project) -> None:
    project.set(saliency__top_k=0.1)
    project.succeed("masks")
    assert f"{project.data / 'features.h5'}: was made from other masks" in project.fail("retrain")
    project.succeed("features")
    assert f"{project.data / 'retrained'}: was made from other features" in project.fail("evaluate")
    assert f"{project.data / 'sweep'}: was made from other features" in project.fail("retrain")
    for stage in ("sweep", "retrain", "baselines", "evaluate"):
        project.succeed(stage)


def test_images_replaced_between_stages(project: Project) -> None:
    project.set(dataset__stored_size=80)
    project.succeed("prepare")
    for stage in ("saliency", "originals", "features", "evaluate"):
        assert f"{project.data / 'erm'}: was made from other images" in project.fail(stage)


def test_bad_params_are_told_before_any_work(project: Project) -> None:
    project.set(retrain__alpha="much")
    message = "params.yaml: retrain.alpha: Value error, should be a number from 0 to 1,000,000, or auto"
    assert message in project.fail("prepare")


def start(
    project: Project, stage: str, *, block: int = 64, hold: Path | None = None
) -> subprocess.Popen[str]:
    """`mac STAGE` in a process of its own, with small blocks: there is a middle to be killed in.

    With `hold`, it waits after each block, or each checkpoint, until that file is there or Ctrl-C comes.
    """
    code = f"""
import os, signal, time
import pipeline.compute.engine as engine
import pipeline.steps.{stage} as module
from pipeline.network.checkpoint import Checkpoint
hold, interrupted, interrupt = {hold and str(hold)!r}, [], signal.getsignal(signal.SIGINT)
def on_interrupt(*arguments):
    interrupted.append(True)
    interrupt(*arguments)
signal.signal(signal.SIGINT, on_interrupt)
def held(function):
    def call(*arguments):
        result = function(*arguments)
        while hold and not os.path.exists(hold) and not interrupted:
            time.sleep(0.01)
        return result
    return call
engine.Task.do, Checkpoint.write = held(engine.Task.do), held(Checkpoint.write)
import pipeline.compute.device as device
if hasattr(module, "BATCHES"):
    module.BATCHES = 1
    device.forward_batch = lambda _on: {block}
from stages.cli import main
main()
"""
    command = [
        sys.executable,
        "-c",
        code,
        stage,
        "--data",
        str(project.data),
        "--params",
        str(project.params_file),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must succeed; return standard error."""
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return error


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until the process has made a file matching `pattern` below `folder`."""
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_when(process: subprocess.Popen[str], folder: Path, pattern: str, how: signal.Signals) -> str:
    """Send `how` when the process has made such a file; return standard error."""
    wait_for(process, folder, pattern)
    process.send_signal(how)
    return process.communicate(timeout=60)[1]


@pytest.mark.parametrize(("stage", "how"), [("saliency", signal.SIGKILL), ("features", signal.SIGINT)])
def test_a_stage_killed_half_way_goes_on_where_it_was(
    project: Project, tmp_path: Path, stage: str, how: signal.Signals
) -> None:
    artefact = project.data / {"saliency": "maps.h5", "features": "features.h5"}[stage]
    before = artefact.read_bytes()
    finish(start(project, stage, block=4))
    expected = artefact.read_bytes()
    artefact.write_bytes(before)
    process = start(project, stage, block=4, hold=tmp_path / "never")
    error = kill_when(process, project.data / "scratch", f"{stage}-*/**/*.safetensors", how)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert error.strip().endswith("Interrupted; the same command continues where it was.")
        assert "Traceback" not in error
    assert artefact.read_bytes() == before
    error = finish(start(project, stage, block=4))
    assert "blocks were done before" in error
    assert artefact.read_bytes() == expected
    assert not list((project.data / "scratch").iterdir())


def test_training_killed_half_way_goes_on_after_its_last_epoch(project: Project, tmp_path: Path) -> None:
    before = (project.data / "erm/model.safetensors").read_bytes()
    project.set(train__epochs=4)
    process = start(project, "train", hold=tmp_path / "never")
    kill_when(process, project.data / "scratch", "train-*/checkpoint.safetensors", signal.SIGKILL)
    assert (project.data / "erm/model.safetensors").read_bytes() == before
    error = finish(start(project, "train"))
    assert "continuing after epoch" in error
    assert "epoch 1 of 4: loss" not in error
    resumed = {file.name: file.read_bytes() for file in (project.data / "erm").iterdir()}
    finish(start(project, "train"))
    assert resumed == {file.name: file.read_bytes() for file in (project.data / "erm").iterdir()}


# Twenty times in a row the stage, in a child of a process that has imported all of it, killed after a while.
TWENTY_KILLS = """
import os, random, signal, sys, time
import pipeline.steps.features as module
from pipeline.compute import device, engine
from stages.cli import main

module.BATCHES = 1
device.forward_batch = lambda _on: 4
do = engine.Task.do
engine.Task.do = lambda *task: (time.sleep(0.05), do(*task))[1]
rng = random.Random(0)
for _ in range(20):
    child = os.fork()
    if child == 0:
        main(["features", *sys.argv[1:]])
    time.sleep(rng.uniform(0.02, 0.9))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(os.WIFSIGNALED(status))
"""


def test_killed_at_random_moments_twenty_times(project: Project) -> None:
    finish(start(project, "features", block=4))
    expected = (project.data / "features.h5").read_bytes()
    (project.data / "features.h5").unlink()
    options = ["--data", str(project.data), "--params", str(project.params_file)]
    command = [sys.executable, "-c", TWENTY_KILLS, *options]
    killed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert killed.count("True") >= 10  # the others were done before
    finish(start(project, "features", block=4))
    assert (project.data / "features.h5").read_bytes() == expected
    assert not list((project.data / "scratch").iterdir())
    assert not list(project.data.glob("*.tmp"))


def test_two_at_once_do_not_disturb_each_other(project: Project, tmp_path: Path) -> None:
    before = (project.data / "features.h5").read_bytes()
    hold = tmp_path / "first may go on"
    first = start(project, "features", block=4, hold=hold)
    wait_for(first, project.data / "scratch", "features-*/**/*.safetensors")
    second = start(project, "features", block=4)
    assert second.stderr is not None
    while "another process does the same work" not in second.stderr.readline():
        assert second.poll() is None
    hold.touch()
    finish(first)
    finish(second)
    assert (project.data / "features.h5").read_bytes() == before


def test_ctrl_c_ends_the_workers_too(project: Project) -> None:
    """As a terminal has it: the signal goes to the whole process group."""
    before = (project.data / "maps.h5").read_bytes()
    command = [
        sys.executable,
        "-m",
        "stages",
        "saliency",
        "--data",
        str(project.data),
        "--params",
        str(project.params_file),
    ]
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("Dask cluster of 2 workers, dashboard: http://127.0.0.1:")
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.strip().endswith("Interrupted; the same command continues where it was.")
    assert "Traceback" not in error
    assert (project.data / "maps.h5").read_bytes() == before
    deadline = time.monotonic() + 30
    while alive := in_session(process.pid):
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def in_session(session: int) -> list[str]:
    """Command lines of the processes of a session that are not dead."""
    listed = subprocess.run(["ps", "-s", str(session), "-o", "stat=,args="], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True
    ).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("stage", "left"),
    [
        ("prepare", 1 << 16),
        ("prepare", 5 << 20),
        ("masks", 1 << 16),
        ("features", 1 << 16),
        ("features", 5 << 20),
        ("retrain", 1 << 16),
    ],
)
def test_a_full_disk(project: Project, tmp_path: Path, stage: str, left: int) -> None:
    artefact = {
        "prepare": "images.h5",
        "masks": "masks.h5",
        "features": "features.h5",
        "retrain": "retrained/model.safetensors",
    }[stage]
    small = Project(tmp_path / "small")
    with mounted(small.folder, "size=64m"):
        shutil.copytree(project.folder, small.folder, dirs_exist_ok=True)
        before = (small.data / artefact).read_bytes()
        free = shutil.disk_usage(small.folder).free
        with (small.folder / "filler").open("wb") as filler:
            filler.write(bytes(free - left))
        line = small.fail(stage)
        assert "cannot be written" in line
        assert "No space left" in line or "errno = 28" in line or "os error 28" in line
        assert (small.data / artefact).read_bytes() == before
        (small.folder / "filler").unlink()
        small.succeed(stage)
        assert (small.data / artefact).read_bytes() == before


@pytest.mark.parametrize("stage", ["train", "saliency", "retrain", "evaluate", "sweep"])
def test_a_folder_that_may_only_be_read(project: Project, tmp_path: Path, stage: str) -> None:
    frozen = Project(tmp_path / "frozen")
    with mounted(frozen.folder, "size=64m"):
        shutil.copytree(project.folder, frozen.folder, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", frozen.folder], check=True)
        line = frozen.fail(stage)
        assert "cannot be written" in line
        assert "Read-only file system" in line


def test_what_a_broken_off_run_left_is_listed_and_removed(project: Project, tmp_path: Path) -> None:
    process = start(project, "features", block=4, hold=tmp_path / "never")
    kill_when(process, project.data / "scratch", "features-*/**/*.safetensors", signal.SIGKILL)
    said = project.succeed("clean").output
    assert "left by a run that was broken off" in said
    assert "'mac clean --remove' removes it" in said
    assert list((project.data / "scratch").iterdir())
    assert "nothing left" in project.succeed("clean", "--older-than", "1").output
    assert "removed" in project.succeed("clean", "--remove").output
    assert not list((project.data / "scratch").iterdir())
    assert "nothing left" in project.succeed("clean").output
