"""Workers in processes of their own: the same bytes, whatever happens to them."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import LocalCluster
from distributed.comm.core import CommClosedError

from pipeline import graph
from pipeline.compute import cluster, code
from pipeline.compute.cluster import DaskCluster
from pipeline.compute.connection import connect
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
def started() -> Iterator[DaskCluster]:
    """A cluster of two worker processes on this machine."""
    with connect(2, None, "cpu") as found:
        yield found


@pytest.fixture
def two(started: DaskCluster) -> DaskCluster:
    """The same cluster; a worker that a test before has ended is back.

    On a busy machine Dask may give up starting it again. Then all are started anew.
    """
    try:
        started.client.wait_for_workers(2, timeout=30)
    except TimeoutError:
        started.client.restart(timeout=60)
        started.client.wait_for_workers(2, timeout=60)
    return started


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
    )
    monkeypatch.setattr(cluster, "workers_of", lambda _client: {"tcp://a:1": {}})
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
        carrier.answer([range(3)], None)


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
            with connect(None, address, "cpu") as found:
                found.client.wait_for_workers(1, timeout=60)
                with pytest.raises(MacError, match=message), Scratch(hidden, "a", __name__) as scratch:
                    squares(scratch, Squares(tmp_path), blocks(9, 3), found)
        finally:
            worker.kill()
            worker.wait()


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
        with pytest.raises(MacError, match=lost), connect(None, address, "cpu") as found:
            threading.Thread(target=close_after_a_block).start()
            with Scratch(tmp_path, "squares", __name__) as scratch:
                squares(scratch, Squares(tmp_path / "begun", seconds=0.2), blocks(60, 3), found)
    assert caplog.text.count(f"scheduler {address} has no workers; waiting for one") == 1
    assert 0 < len(list(scratch.folder.glob("*.safetensors"))) < 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a worker without a GPU says")
def test_a_command_without_a_gpu_sends_gpu_work_to_workers_that_declare_one(project: Project) -> None:
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", resources={"GPU": 1}, dashboard_address=":0"
    ) as there:
        said = project.fail("saliency", "--scheduler-address", there.scheduler_address)
    assert "device cuda: PyTorch sees no CUDA device here" in said  # which is the worker's answer


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


@dataclass(frozen=True)
class Counted:
    """An argument that leaves a file where it is unpacked."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return unpacked, (self.folder,)


def unpacked(folder: Path) -> Counted:
    (folder / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
    return Counted(folder)


class Doubles:
    """Repeated work."""

    @contextmanager
    def open(self) -> Iterator[Callable[[range, Counted], int]]:
        yield lambda part, _argument: 2 * part.start


def test_an_argument_is_sent_once_to_each_worker_not_with_each_part(two: DaskCluster, tmp_path: Path) -> None:
    parts = [range(start, start + 5) for start in range(0, 60, 5)]
    with two.keeping("doubles", Doubles()) as doubled:
        for times in (1, 2):
            assert doubled(parts, Counted(tmp_path)) == [2 * part.start for part in parts]
            processes = Counter(int(file.name.partition("-")[0]) for file in tmp_path.iterdir())
            del processes[os.getpid()]  # the scheduler is in this process
            assert list(processes.values()) == [times, times]


def test_an_argument_is_sent_again_for_parts_that_are_too_many_for_one_share(
    two: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PARTS", 4)
    parts = [range(start, start + 5) for start in range(0, 60, 5)]
    with two.keeping("doubles", Doubles()) as doubled:
        assert doubled(parts, Counted(tmp_path)) == [2 * part.start for part in parts]
    sent = [file for file in tmp_path.iterdir() if not file.name.startswith(f"{os.getpid()}-")]
    assert len(sent) == 4  # 12 parts, 2 workers of 4 at a time: two shares for each


def test_a_scheduler_that_ends_between_two_calls_of_repeated_work_is_lost(tmp_path: Path) -> None:
    parts, argument = [range(5), range(5, 9)], Counted(tmp_path)
    options: dict[str, Any] = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    quick = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with quick, LocalCluster(n_workers=1, **options) as there:
        lost = f"^scheduler {there.scheduler_address}: the connection is lost; "
        with (
            pytest.raises(MacError, match=lost),
            connect(None, there.scheduler_address, "cpu") as found,
            found.keeping("doubles", Doubles()) as doubled,
        ):
            assert doubled(parts, argument) == [0, 10]
            there.close()
            doubled(parts, argument)


def test_a_scheduler_whose_address_cannot_be_connected_to_is_lost() -> None:
    """It has just ended, and the client has not noticed yet."""

    def refuse(_function: Any) -> Any:
        raise OSError("Timed out trying to connect")

    client: Any = SimpleNamespace(scheduler=SimpleNamespace(identity=None), sync=refuse)
    with pytest.raises(CommClosedError, match="Timed out"):
        cluster.workers_of(client)


@pytest.mark.parametrize("many", [1, 2, 3, 7, 40])
def test_shares_are_neighbours_with_about_as_many_rows(many: int) -> None:
    lengths = [7, 8, 8, 8, 3, 8, 8, 8, 8, 2]
    ends = np.cumsum(lengths).tolist()
    parts = [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    shares = cluster._shares(parts, many)
    assert list(chain(*shares)) == parts
    assert len(shares) == min(many, len(parts))
    rows = [sum(map(len, share)) for share in shares]
    assert max(rows) <= sum(lengths) / many + 8


def test_workers_are_there_though_the_client_asks_for_itself_without_them(two: DaskCluster) -> None:
    """As it does every two seconds; its answer must not be taken for this one's."""
    over = threading.Event()

    async def ask() -> None:
        while not over.is_set():
            await two.client._update_scheduler_info(n_workers=0)

    two.client.loop.add_callback(ask)
    try:
        assert [len(cluster.workers_of(two.client)) for _ in range(200)] == [2] * 200
    finally:
        over.set()
