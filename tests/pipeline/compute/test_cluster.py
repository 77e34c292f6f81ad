"""Workers in processes of their own: the same bytes, whatever happens to them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
from distributed import LocalCluster

from pipeline import features, prepare, saliency
from pipeline.compute import cluster
from pipeline.compute.cluster import DaskCluster
from pipeline.compute.engine import Arrays, Block, Shards, blocks
from pipeline.errors import MacError
from tests.conftest import REPOSITORY, Project

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def two() -> Iterator[DaskCluster]:
    """A cluster of two worker processes on this machine."""
    with cluster.connect(2, None, "cpu") as found:
        yield found


@dataclass(frozen=True)
class Squares:
    """Work that leaves a file for every block begun, named for its process, and may fail or hang in block `bad`, the first time."""

    folder: Path
    bad: int = -1
    how: str = ""
    seconds: float = 0.05

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        yield self.block

    def block(self, block: Block) -> Arrays:
        first = not list(self.folder.glob(f"{block.start}-*"))
        (self.folder / f"{block.start}-{os.getpid()}").touch()
        if block.start == self.bad and self.how == "refuse":
            raise MacError("row 6 is no good")
        if block.start == self.bad and first and self.how == "hang":
            time.sleep(1000)
        if block.start == self.bad and first and self.how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(self.seconds)
        return {"square": np.arange(block.start, block.stop) ** 2}


def squares(shards: Shards, work: Squares, cut: list[Block], found: DaskCluster) -> list[int]:
    values: list[int] = []
    shards.map_blocks(work, cut, lambda _, arrays: values.extend(arrays["square"].tolist()), cluster=found)
    return values


def test_the_artefacts_are_the_same_bytes(two: DaskCluster, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    data, params = project.data, project.params
    before = {name: (data / name).read_bytes() for name in ("images.h5", "masks.h5", "features.h5")}
    for module in (saliency, features):
        monkeypatch.setattr(module, "BATCHES", 1)
    monkeypatch.setattr(prepare, "BLOCK", 7)
    erm, scratch = data / "erm", data / "scratch"
    prepare.prepare(params.dataset, data / "images.h5", scratch, two)
    saliency.saliency(data / "images.h5", erm, data / "masks.h5", params.saliency, CPU, scratch, cluster=two)
    features.features(data / "images.h5", erm, data / "masks.h5", data / "features.h5", params.features, CPU, scratch, two)
    assert {name: (data / name).read_bytes() for name in before} == before
    assert not list(scratch.iterdir())


def test_a_worker_killed_in_the_middle_of_a_block(two: DaskCluster, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    work = Squares(begun, seconds=0.3)
    killed: list[int] = []

    def kill() -> None:
        while not (started := list(begun.glob("6-*"))):
            time.sleep(0.01)
        killed.append(int(started[0].name.split("-")[1]))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with Shards(tmp_path, "squares", 1) as shards:
        assert squares(shards, work, blocks(30, 3), two) == [i * i for i in range(30)]
    thread.join()
    assert len(list(begun.glob("6-*"))) == 2  # the block was begun again, in another process


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_worker_that_hangs_or_is_stopped_is_started_anew(
    two: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(cluster, "STALLED", 3.0)
    (tmp_path / "begun").mkdir()
    work = Squares(tmp_path / "begun", bad=6, how=how)
    with Shards(tmp_path, "squares", 1) as shards:
        assert squares(shards, work, blocks(30, 3), two) == [i * i for i in range(30)]
    assert len(list((tmp_path / "begun").glob("6-*"))) == 2


def test_a_user_s_mistake_is_told_as_it_is_and_what_was_done_is_kept(two: DaskCluster, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    with pytest.raises(MacError, match="row 6 is no good"), Shards(tmp_path, "squares", 1) as shards:
        squares(shards, Squares(tmp_path / "begun", bad=6, how="refuse"), blocks(9, 3), two)
    done = len(list(shards.folder.glob("*.safetensors")))
    with Shards(tmp_path, "squares", 1) as shards:
        assert squares(shards, Squares(tmp_path / "begun"), blocks(9, 3), two) == [i * i for i in range(9)]
    assert len(list((tmp_path / "begun").iterdir())) <= 3 + 3 - done + 1


def test_a_worker_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    """In a mount namespace of its own, where another file system hides the folder."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    python = sys.executable
    inside = f"mount -t tmpfs none {hidden} && exec {python} -m distributed.cli.dask_worker $0 --nthreads 1 --no-dashboard"
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", hidden], capture_output=True).returncode:
        pytest.skip("no mount namespace may be made here")
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty, cluster.connect(None, empty.scheduler_address, "cpu") as found:
        address = empty.scheduler_address
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, Path(__file__).parent)))}
        command = ["unshare", "-m", "sh", "-c", inside, address]
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found.client.wait_for_workers(1, timeout=60)
            with pytest.raises(MacError, match=rf"worker tcp://.* does not see {hidden}.*same file system"), Shards(hidden, "a") as shards:
                squares(shards, Squares(tmp_path), blocks(9, 3), found)
        finally:
            worker.kill()
            worker.wait()


def test_what_cannot_be_connected_to_is_one_line() -> None:
    with pytest.raises(MacError, match="give one of them"), cluster.connect(2, "tcp://127.0.0.1:1", "cpu"):
        pass
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):  # noqa: SIM117
        with pytest.raises(MacError, match=r"--scheduler-address tcp://127.0.0.1:1: no Dask scheduler answers"):
            with cluster.connect(None, "tcp://127.0.0.1:1", "cpu"):
                pass


@pytest.mark.parametrize(("resources", "kind"), [({"GPU": 1}, "cuda"), ({}, "cuda" if torch.cuda.is_available() else "cpu")])
def test_the_workers_kind_of_device_counts_not_this_process_s(resources: dict[str, int], kind: str) -> None:
    with LocalCluster(n_workers=1, processes=False, resources=resources, dashboard_address=":0") as there:
        with cluster.connect(None, there.scheduler_address, "auto") as found:
            assert found.on.type == kind
        with cluster.connect(None, there.scheduler_address, "cpu") as found:
            assert found.on.type == "cpu"
        with pytest.raises(MacError, match="--device gpu: should be"), cluster.connect(None, there.scheduler_address, "gpu"):
            pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a worker says that has no GPU is tested where there is none")
def test_a_command_without_a_gpu_sends_gpu_work_to_workers_that_declare_one(project: Project) -> None:
    with LocalCluster(n_workers=1, processes=False, resources={"GPU": 1}, dashboard_address=":0") as there:
        said = project.fail("saliency", "--scheduler-address", there.scheduler_address)
    assert "--device cuda: PyTorch sees no CUDA device here" in said  # which is the worker's answer


def signals_blocked() -> list[int]:
    """The signals that each thread of this process has blocked, as bits."""
    said = [(task / "status").read_text() for task in Path("/proc/self/task").iterdir()]
    return [int(text.partition("SigBlk:")[2].split()[0], 16) for text in said]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_does_not_reach_workers_nor_those_started_anew() -> None:
    interrupt = 1 << (signal.SIGINT - 1)
    with cluster.connect(2, None, "cpu") as found:
        first = set(found.client.run(os.getpid).values())
        os.kill(min(first), signal.SIGKILL)
        deadline = time.monotonic() + 120
        while len(now := set(found.client.run(os.getpid, on_error="ignore").values())) < 2 or now == first:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        of_workers = found.client.run(signals_blocked)
    assert len(of_workers) == 2
    assert all(blocked & interrupt for threads in of_workers.values() for blocked in threads)
    assert not signals_blocked()[0] & interrupt
