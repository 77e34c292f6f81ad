"""The README's commands for more than one process, as they are written there, and training by torchrun."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import REPOSITORY, Project
from tests.readme import commands

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}


DIES_AFTER_AN_EPOCH = """
import os, sys
from pipeline.network.checkpoint import Checkpoint
from stages.cli import main

write = Checkpoint.write

def dies(checkpoint, path):
    write(checkpoint, path)
    os._exit(1)

Checkpoint.write = dies
main(["train", *sys.argv[1:]])
"""

WITHOUT_AUGMENTATION = """
import sys
from contextlib import nullcontext
from pipeline.compute import ranks
from pipeline.network import training
from pipeline.params.inputs import InputParams
from stages.cli import main

def middle(stored, size, *_):
    inputs = InputParams(input_size=size, to_input="center_crop")
    return training.to_input_grid(stored, inputs).float() / 255

training.random_resized_crop_and_flip = middle
with ranks.joined("cpu") as on:  # once for all stages
    ranks.joined = lambda _: nullcontext(on)
    for stage in sys.argv[1].split():
        main([stage, *sys.argv[2:]], standalone_mode=False)
"""


BLOCKS = [(commands("--workers 2"), "maps.h5"), (commands("dask scheduler --host 127.0.0.1"), "features.h5")]


@pytest.mark.parametrize(("block", "artefact"), BLOCKS)
def test_the_readme_s_commands_as_they_are_written(project: Project, block: str, artefact: str) -> None:
    before = (project.data / artefact).read_bytes()
    (project.data / artefact).unlink()
    said = project.folder / "said.txt"
    with said.open("w") as log:
        shell = subprocess.Popen(
            ["bash", "-ec", block],
            cwd=project.folder,
            env=ENVIRONMENT,
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
        try:
            assert shell.wait(timeout=180) == 0, said.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert (project.data / artefact).read_bytes() == before


def test_tls_by_dask_s_own_configuration(project: Project) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    before = (project.data / "maps.h5").read_bytes()
    there = project.folder / "scheduler.json"
    made = subprocess.run(
        ["bash", "-ec", f"{commands('openssl req')}\nenv"],
        cwd=project.folder,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    tls = dict(line.split("=", 1) for line in made.stdout.splitlines() if line.startswith("DASK_DISTRIBUTED"))
    assert len(tls) == 8
    options = {
        "env": ENVIRONMENT | tls,
        "cwd": project.folder,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    scheduler = [
        BIN / "dask",
        "scheduler",
        "--protocol",
        "tls",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    with ExitStack() as stack:
        for command in (
            [*scheduler, "--scheduler-file", there],
            [BIN / "dask", "worker", "--scheduler-file", there, "--nthreads", "1"],
        ):
            process = stack.enter_context(subprocess.Popen(command, **options))
            stack.callback(process.terminate)
        deadline = time.monotonic() + 60
        while not there.exists() or not there.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = json.loads(there.read_text())["address"]
        assert address.startswith("tls://")
        ours = [BIN / "mac", "saliency", "--scheduler-address"]
        (project.data / "maps.h5").unlink()
        done = subprocess.run(
            [*ours, address], env=ENVIRONMENT | tls, cwd=project.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        bare = ENVIRONMENT | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
        refused = subprocess.run(
            [*ours, address.replace("tls", "tcp")],
            env=bare,
            cwd=project.folder,
            capture_output=True,
            text=True,
        )
        assert refused.returncode == 1
        assert "no Dask scheduler answers" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert (project.data / "maps.h5").read_bytes() == before


STANDALONE = "--standalone"
TRAIN = ("-m", "stages", "train")


def started(project: Project, processes: int, machine: str, *program: str | Path) -> subprocess.Popen[str]:
    """Start torchrun for some processes on a machine."""
    options = ["--data", project.data, "--params", project.params_file, "--device", "cpu"]
    return subprocess.Popen(
        [BIN / "torchrun", *machine.split(), f"--nproc-per-node={processes}", *program, *options],
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def ended(torchrun: subprocess.Popen[str], code: int = 0) -> str:
    """What it said on standard error."""
    with torchrun:
        _, said = torchrun.communicate()
    assert torchrun.returncode == code, said
    return said


def test_two_processes_train_what_one_does(project: Project) -> None:
    """Without batch normalisation and augmentation, two halves have the mean gradient of the whole."""
    project.set(model__architecture="squeezenet1_1", train__batch_size=14, train__epochs=2, train__lr=0.002)
    project.set(jtt__first_epochs=1, jtt__epochs=2, jtt__lr=0.002)
    program = project.folder / "plain.py"
    program.write_text(WITHOUT_AUGMENTATION)
    models = {
        name: project.data / name / "model.safetensors"
        for name in ("erm", "comparison/jtt", "comparison/masktune")
    }
    ended(started(project, 1, STANDALONE, program, "train jtt masktune"))
    alone = {name: load_file(path) for name, path in models.items()}
    for path in models.values():
        (path.parent / "metrics.json").unlink()
    ended(started(project, 2, STANDALONE, program, "jtt masktune train"))  # so all have the same ERM
    for name, path in models.items():
        assert (path.parent / "metrics.json").exists()
        together = load_file(path)
        # it did train again
        assert any(not torch.equal(together[each], tensor) for each, tensor in alone[name].items()), name
        for each, tensor in alone[name].items():
            assert torch.allclose(together[each], tensor, rtol=1e-3, atol=1e-5), (name, each)


def test_two_machines_train_what_one_does_that_dies_and_goes_on(project: Project) -> None:
    project.set(train__epochs=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    machine = f"--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint={endpoint}"
    said = [ended(each) for each in [started(project, 1, machine, *TRAIN) for _ in range(2)]]
    assert sum(each.count("epoch 2 of 2") for each in said) == 1
    files = ("model.safetensors", "best.safetensors", "history.csv", "metrics.json")
    whole = {file: (project.data / "erm" / file).read_bytes() for file in files}
    shutil.rmtree(project.data / "erm")
    broken = project.folder / "broken.py"
    broken.write_text(DIES_AFTER_AN_EPOCH)
    ended(started(project, 2, STANDALONE, broken), code=1)
    assert "continuing after epoch 1 of 2" in ended(started(project, 2, STANDALONE, *TRAIN))
    assert {file: (project.data / "erm" / file).read_bytes() for file in whole} == whole
