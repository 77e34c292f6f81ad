"""Workers in processes of their own: the same bytes, whatever happens to them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import torch
from distributed import LocalCluster, Security

from pipeline import graph
from pipeline.compute import cluster, code
from pipeline.compute.cluster import DaskCluster
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Scratch, blocks
from pipeline.errors import MacError
from pipeline.last_layer import lbfgs
from pipeline.params.retrain import RetrainParams
from pipeline.steps import features, masks, originals, prepare, saliency
from pipeline.steps.retrain import retrain
from tests import cached
from tests.conftest import REPOSITORY, Project


@pytest.fixture(scope="module")
def two() -> Iterator[DaskCluster]:
    """A cluster of two worker processes on this machine."""
    with cluster.connect(2, None, "cpu") as found:
        yield found


@dataclass(frozen=True)
class Squares:
    """Work that leaves a file for every block that is begun, named after its process.

    In block `bad` it may fail, or hang the first time.
    """

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


def squares(scratch: Scratch, work: Squares, cut: list[Block], found: DaskCluster) -> list[int]:
    values: list[int] = []

    def merge(_block: Block, arrays: Arrays) -> None:
        values.extend(arrays["square"].tolist())

    scratch.map_blocks(work, cut, merge, cluster=found)
    return values


def params_of(project: Project, stage: str) -> list[Any]:
    """The parameter models of a stage."""
    return [project.params.of(model) for model in graph.stage(stage).models()]


def test_the_artefacts_are_the_same_bytes(
    two: DaskCluster, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, context = project.data, Context("cpu", project.data / "scratch", two)
    main = [stage for stage in graph.STAGES if stage.pipeline == "main" and stage.cluster]
    stages = [stage for stage in main if stage.makes[0].form == "hdf5"]
    files = [data / stage.makes[0].path for stage in stages]
    assert [file.stem for file in files] == ["images", "maps", "masks", "originals", "features"]
    before = [file.read_bytes() for file in files]
    for module in (saliency, masks, originals, features):
        monkeypatch.setattr(module, "BATCHES", 1)
    monkeypatch.setattr(prepare, "BLOCK", 7)
    for stage, file in zip(stages, files, strict=True):
        with project.open(*stage.needs) as given:
            stage.function()(given, file, *params_of(project, stage.name), context)
    assert [file.read_bytes() for file in files] == before
    assert not list((data / "scratch").iterdir())


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
    with Scratch(tmp_path, "squares", __name__) as scratch:
        assert squares(scratch, work, blocks(30, 3), two) == [i * i for i in range(30)]
    thread.join()
    assert len(list(begun.glob("6-*"))) == 2  # the block was begun again, in another process


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_worker_that_hangs_or_is_stopped_is_started_anew(
    two: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(cluster, "STALLED", 3.0)
    (tmp_path / "begun").mkdir()
    work = Squares(tmp_path / "begun", bad=6, how=how)
    with Scratch(tmp_path, "squares", __name__) as scratch:
        assert squares(scratch, work, blocks(30, 3), two) == [i * i for i in range(30)]
    assert len(list((tmp_path / "begun").glob("6-*"))) == 2


@pytest.mark.parametrize(("wanted", "restarted"), [({"a part": 1}, ["tcp://a:1"]), ({}, [])])
def test_workers_of_which_nothing_is_wanted_do_not_stall(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, int], restarted: list[str]
) -> None:
    """Such as while this process itself computes the next step of L-BFGS."""
    found: list[str] = []
    client = SimpleNamespace(
        futures=wanted,
        processing=lambda: {"tcp://a:1": ["a part"]},
        restart_workers=lambda workers, **_: found.extend(workers),
        scheduler_info=lambda **_: {"workers": {"tcp://a:1": {}}},
    )
    monkeypatch.setattr(cluster, "STALLED", 0.01)
    watch = cluster._Watch(client)
    time.sleep(0.05)
    watch.stop()
    assert sorted(set(found)) == restarted


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried much")])
def test_memory_that_runs_out_for_a_part_is_one_line(error: Exception) -> None:
    def answer(_part: range, _argument: object) -> None:
        raise error

    carrier = cluster._Carrier("retrain", Squares(Path()), {}, None, "")
    carrier.setup(SimpleNamespace(address="tcp://a:1"))
    carrier._function = answer
    with pytest.raises(MacError, match=r"^worker tcp://a:1 on .*: memory ran out \(.*\); free some of it$"):
        carrier.answer(range(3), None)


def test_a_user_s_mistake_is_told_as_it_is_and_what_was_done_is_kept(
    two: DaskCluster, tmp_path: Path
) -> None:
    (tmp_path / "begun").mkdir()
    with pytest.raises(MacError, match="row 6 is no good"), Scratch(tmp_path, "squares", __name__) as scratch:
        squares(scratch, Squares(tmp_path / "begun", bad=6, how="refuse"), blocks(9, 3), two)
    done = len(list(scratch.folder.glob("*.safetensors")))
    with Scratch(tmp_path, "squares", __name__) as scratch:
        assert squares(scratch, Squares(tmp_path / "begun"), blocks(9, 3), two) == [i * i for i in range(9)]
    assert len(list((tmp_path / "begun").iterdir())) <= 3 + 3 - done + 1


def test_a_worker_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    """In a mount namespace of its own, where another file system hides the folder."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", hidden], capture_output=True
    ).returncode:
        pytest.skip("no mount namespace may be made here")
    worker_command = f"{sys.executable} -m distributed.cli.dask_worker $0 --nthreads 1 --no-dashboard"
    inside = f"mount -t tmpfs none {hidden} && exec {worker_command}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, Path(__file__).parent))),
    }
    message = rf"worker tcp://.* does not see {hidden}.*same file system"
    with LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        worker = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", inside, address],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with cluster.connect(None, address, "cpu") as found:
                found.client.wait_for_workers(1, timeout=60)
                with pytest.raises(MacError, match=message), Scratch(hidden, "a", __name__) as scratch:
                    squares(scratch, Squares(tmp_path), blocks(9, 3), found)
        finally:
            worker.kill()
            worker.wait()


def test_what_cannot_be_connected_to_is_one_line() -> None:
    with pytest.raises(MacError, match="give one of them"), cluster.connect(2, "tcp://127.0.0.1:1", "cpu"):
        pass
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):  # noqa: SIM117
        with pytest.raises(MacError, match=r"^scheduler tcp://127.0.0.1:1: no Dask scheduler answers"):
            with cluster.connect(None, "tcp://127.0.0.1:1", "cpu"):
                pass


NO_ADDRESSES = (
    "host",
    "",
    "tcp://",
    "tcp://host",
    "tcp://host:port",
    "tcp://host:99999",
    "http://host:80",
    "://:1",
)


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_an_address_without_host_and_port_is_one_line(address: str) -> None:
    with pytest.raises(MacError, match="should be tcp://host:port or tls://host:port$"):
        cluster._client(address, None)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64)], ids=["nothing", "http", "0"]
)
def test_what_is_no_scheduler_is_one_line_soon(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    stack.enter_context(server.accept()[0]).sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with dask.config.set({"distributed.comm.timeouts.connect": "300ms"}):  # noqa: SIM117
            with pytest.raises(MacError, match=f"^scheduler {address}: no Dask scheduler answers"):
                cluster._client(address, None)


def test_a_cluster_here_takes_orders_from_this_process_alone(two: DaskCluster) -> None:
    address = two.client.scheduler.address
    assert address.startswith("tls://")
    with pytest.raises(MacError, match="name your certificates in DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        cluster._client(address, None)
    with pytest.raises(MacError, match="no Dask scheduler answers"):
        cluster._client(address.replace("tls", "tcp"), None)
    with pytest.raises(MacError, match="no Dask scheduler answers.*certificate"):
        cluster._client(address, Security.temporary())


def listening() -> set[str]:
    """The addresses at which this process listens."""
    found = psutil.Process().net_connections("inet")
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}


def test_a_cluster_here_listens_here_alone(two: DaskCluster) -> None:
    assert listening() == {"127.0.0.1"}
    assert set().union(*two.client.run(listening).values()) == {"127.0.0.1"}


def test_workers_with_other_code_are_refused(
    two: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process has read another source than its workers."""
    monkeypatch.setitem(code._LOADED, "pipeline.store.artefact", b"# another")
    code.code_of.cache_clear()
    said = r"has other code than this process \(pipeline.store.artefact\)"
    with pytest.raises(MacError, match=rf"^worker tls://127.0.0.1:\d+ on 127.0.0.1 {said}"):  # noqa: SIM117
        with Scratch(tmp_path, "squares", __name__) as scratch:
            squares(scratch, Squares(tmp_path), blocks(9, 3), two)
    code.code_of.cache_clear()
    assert not list(tmp_path.glob("0-*"))  # no block was begun


def test_too_few_files_are_raised_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(cluster.resource, "setrlimit", lambda _what, limits: set_to.append(limits))
    monkeypatch.setattr(cluster.resource, "getrlimit", lambda _what: (64, 4096))
    cluster._require_files(2)
    assert set_to == [(112, 4096)]
    monkeypatch.setattr(cluster.resource, "getrlimit", lambda _what: (100, 100))
    with pytest.raises(MacError, match="^workers: 2 need 112 open files, and 100 are allowed here; "):
        cluster._require_files(2)


def test_a_scheduler_without_workers_and_one_that_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "begun").mkdir()
    options: dict[str, Any] = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}

    def close_after_a_block() -> None:
        while not list(tmp_path.glob("squares-*/*.safetensors")):
            time.sleep(0.05)
        there.close()

    with LocalCluster(n_workers=0, **options) as there, caplog.at_level("WARNING"):
        address = there.scheduler_address
        threading.Timer(0.5, there.scale, [1]).start()
        lost = f"^scheduler {address}: the connection is lost; .* continues where it was$"
        with pytest.raises(MacError, match=lost), cluster.connect(None, address, "cpu") as found:
            threading.Thread(target=close_after_a_block).start()
            with Scratch(tmp_path, "squares", __name__) as scratch:
                squares(scratch, Squares(tmp_path / "begun", seconds=0.2), blocks(60, 3), found)
    assert caplog.text.count(f"scheduler {address} has no workers; waiting for one") == 1
    assert 0 < len(list(scratch.folder.glob("*.safetensors"))) < 20


HERE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("resources", "kind"), [({"GPU": 1}, "cuda"), ({}, HERE)])
def test_the_workers_kind_of_device_counts_not_this_process_s(resources: dict[str, int], kind: str) -> None:
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", resources=resources, dashboard_address=":0"
    ) as there:
        with cluster.connect(None, there.scheduler_address, "auto") as found:
            assert found.on.type == kind
        with cluster.connect(None, there.scheduler_address, "cpu") as found:
            assert found.on.type == "cpu"
        unknown = cluster.connect(None, there.scheduler_address, "gpu")
        with pytest.raises(MacError, match="^device gpu: should be"), unknown:
            pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a worker without a GPU says")
def test_a_command_without_a_gpu_sends_gpu_work_to_workers_that_declare_one(project: Project) -> None:
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", resources={"GPU": 1}, dashboard_address=":0"
    ) as there:
        said = project.fail("saliency", "--scheduler-address", there.scheduler_address)
    assert "device cuda: PyTorch sees no CUDA device here" in said  # which is the worker's answer


def signals_blocked() -> dict[int, int]:
    """For each thread of this process, by its number, the signals that it has blocked, as bits."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
        found[int(task.name)] = int(status.partition("SigBlk:")[2].split()[0], 16)
    return found


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
    for threads in of_workers.values():
        assert threads
        assert all(blocked & interrupt for blocked in threads.values())
    assert not signals_blocked()[os.getpid()] & interrupt  # the main thread has the number of its process


def test_workers_share_the_work_of_lbfgs(
    two: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of the head are those of this process alone, however many share the parts."""
    made = cached.write(tmp_path)
    monkeypatch.setattr(lbfgs, "PART", 25)
    params = RetrainParams(
        **cached.fit_params(solver="lbfgs", standardize=True).model_dump(), alpha=1, beta=2
    )
    heads = []
    for place in (None, two):
        with made.open("erm", "features") as given:
            where = Context("cpu", tmp_path / "scratch", place)
            retrain(given, made.path("retrained"), params, cached.AUTO, where)
        heads.append((made.path("retrained") / "head.safetensors").read_bytes())
    assert heads[0] == heads[1]
