"""Blocks of the engine on a Dask cluster: workers in other processes, on this machine or on many.

All workers share a file system, and images, masks and shards go through it. Dask itself sends only names and
numbers. A worker opens the work once. If a worker dies, another one computes its block. If no block is
finished for a long time, the busy workers are restarted.
"""

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import (
    Client,
    KilledWorker,
    Nanny,
    Scheduler,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from pipeline.compute.device import named, pick
from pipeline.compute.engine import Arrays, Block, Work, write_shard
from pipeline.compute.machine import usable_cores
from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line

STALLED = 900.0  # seconds without a finished block, then the busy workers are restarted
FAILURES = 10  # how many workers may die of the same block
TOKEN = ".seen-by-all"
SAME_PACKAGE = "install the same mac-robust on all of them"
# Dask logs every broken connection. What matters is also raised as an exception.
LOGGERS = (
    "distributed",
    "distributed.http.proxy",
    "distributed.scheduler",
    "distributed.nanny",
    "distributed.core",
)


@contextmanager
def connect(workers: int | None, address: str | None, device: str) -> Iterator["DaskCluster"]:
    """The cluster at `address`, or a new one of `workers` processes on this machine.

    With CUDA, each new worker has a GPU of its own. Without it, the new workers share the cores.

    Args:
        device: what the workers compute on; names as for `pick`. `auto` is CUDA if a worker declares the
            resource `GPU`, or if all of them have CUDA; else it is the CPU.

    Raises:
        MacError: both `workers` and `address` are given, no scheduler answers, the workers do not have this
            package, or there are more workers than GPUs.
    """
    if workers is not None and address is not None:
        raise MacError(
            "a number of workers starts a cluster here, and a scheduler's address names one that runs: "
            "give one of them"
        )
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with ExitStack() as stack:
        stack.enter_context(_quiet_when_interrupted())
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": FAILURES}))
        if workers is not None:
            device = pick(device).type  # new workers have this machine's devices: no need to ask them
            address = stack.enter_context(_local(workers, device)).scheduler_address
        client = stack.enter_context(_client(address))
        log.info("Dask cluster of %d workers, dashboard: %s", len(_workers(client)), _dashboard(client))
        yield DaskCluster(client, _kind(client, device))


@contextmanager
def _quiet_when_interrupted() -> Iterator[None]:
    """Ctrl-C cuts off messages to workers; asyncio would print a traceback for each."""
    try:
        yield
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise


def _client(address: str | None) -> Client:
    try:
        return Client(address, timeout=dask.config.get("distributed.comm.timeouts.connect"))
    except (OSError, ValueError) as error:
        raise MacError(
            f"scheduler {address}: no Dask scheduler answers ({first_line(error)}); "
            "start one with 'dask scheduler'"
        ) from None


def _dashboard(client: Client) -> str:
    if find_spec("bokeh"):
        return str(client.dashboard_link)
    return f"{client.dashboard_link} (needs bokeh: pip install 'mac-robust[dashboard]')"


def _kind(client: Client, device: str) -> torch.device:
    """The kind of device that the workers compute on."""
    if device != "auto":
        return named(device)
    workers = _workers(client)
    if _has_gpu(workers):
        return named("cuda")
    try:
        all_have_cuda = bool(workers) and all(client.run(torch.cuda.is_available).values())
    except Exception as error:  # an import that fails in a worker is raised here too
        raise MacError(
            f"the workers cannot say what they compute on ({first_line(error)}); {SAME_PACKAGE}"
        ) from error
    return named("cuda" if all_have_cuda else "cpu")


def _local(workers: int, kind: str) -> SpecCluster:
    """A cluster of new processes on this machine; with `cuda`, each has one GPU."""
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    if gpus and workers > gpus:
        raise MacError(
            f"workers: {workers} are asked for, and each needs a GPU, of which there are {gpus}; "
            f"ask for {gpus}, or for the device cpu"
        )
    threads = str(max(1, usable_cores() // workers))

    def options(number: int) -> dict[str, Any]:
        environment = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(number)
        return {
            "nthreads": 1,
            "env": environment,
            "memory_limit": 0,
            "resources": {"GPU": 1} if gpus else {},
            "silence_logs": 50,
        }

    addresses = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    # Ctrl-C must reach this process only. A signal that is blocked here stays blocked in the threads that
    # start here, and in the workers that these threads start, now and later.
    resource_tracker.ensure_running()  # if multiprocessing started it later, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return SpecCluster(
            workers={number: {"cls": Nanny, "options": options(number)} for number in range(workers)},
            scheduler={"cls": Scheduler, "options": addresses},
            silence_logs=50,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Carrier(WorkerPlugin):
    """Brings the work to every worker, also to later ones. A worker opens it for its first block."""

    def __init__(self, name: str, work: Work, folder: Path, token: str) -> None:
        self.name, self._work, self._folder, self._token = name, work, folder, token

    def setup(self, worker: Any) -> None:
        self._lock, self._opened = threading.Lock(), ExitStack()
        self._function: Callable[[Block], Arrays] | None = None
        self._at = worker.address

    def teardown(self, worker: Any) -> None:
        self._opened.close()

    def run(self, block: Block, path: Path) -> Block:
        """Compute a block and write its shard.

        One block at a time, because the function itself uses all cores, or the GPU.
        """
        with self._lock:
            if self._function is None:
                self._look_for_the_folder()
                if "OMP_NUM_THREADS" not in os.environ:
                    torch.set_num_threads(max(1, get_worker().state.nthreads))
                self._function = self._opened.enter_context(self._work.open())
            return write_shard(self._function, block, path)

    def _look_for_the_folder(self) -> None:
        try:
            seen = (self._folder / TOKEN).read_text() == self._token
        except OSError:
            seen = False
        if not seen:
            raise MacError(
                f"worker {self._at} on {socket.gethostname()} does not see {self._folder}: "
                "all workers need the same file system, under the same path"
            )


def _on_worker(name: str, block: Block, path: Path) -> Block:
    carrier = get_worker().plugins[name]
    assert isinstance(carrier, _Carrier)
    return carrier.run(block, path)


@dataclass(frozen=True)
class DaskCluster:
    """A running cluster, for the engine.

    Attributes:
        on: the kind of device of its workers. This process may have none.
    """

    client: Client
    on: torch.device

    def compute(
        self, name: str, work: Work, missing: Mapping[Block, Path], done: Callable[[Block], None]
    ) -> None:
        """Compute the blocks in the workers, which write the shards. `done` is called after each block.

        Raises:
            MacError: a block failed for a reason that a user can correct, or its workers died repeatedly.
        """
        folder, token = next(iter(missing.values())).parent, uuid.uuid4().hex
        (folder / TOKEN).write_text(token)
        key = f"{name}-{token[:8]}"
        try:
            self.client.register_plugin(_Carrier(key, work, folder, token))
        except Exception as error:  # an error in a worker is raised here as a bare Exception
            raise MacError(
                f"{name}: the workers cannot take the work ({first_line(error)}); {SAME_PACKAGE}"
            ) from error
        watch = _Watch(self.client)
        try:
            futures = self._submitted(key, missing)
            for future in as_completed(futures):
                try:
                    done(future.result())
                except KilledWorker:
                    block = futures[future]
                    raise MacError(
                        f"{name}: {FAILURES} workers died of rows {block.start} to {block.stop - 1}; "
                        "did their memory run out?"
                    ) from None
                watch.seen()
                future.release()
        finally:
            watch.stop()
            if self.client.status == "running":
                self.client.unregister_worker_plugin(key)

    def _submitted(self, key: str, missing: Mapping[Block, Path]) -> dict[Any, Block]:
        """Each block's future."""
        wanted = {"GPU": 1} if _has_gpu(_workers(self.client)) else None
        futures = {}
        for block, path in missing.items():
            name = f"{key}-{block.start:09d}"
            future = self.client.submit(_on_worker, key, block, path, key=name, pure=False, resources=wanted)
            futures[future] = block
        return futures


def _workers(client: Client) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _has_gpu(workers: list[dict[str, Any]]) -> bool:
    """Whether any worker declares the resource `GPU`."""
    return any("GPU" in worker["resources"] for worker in workers)


class _Watch:
    """Restarts the busy workers if no block is finished for STALLED seconds.

    Without this, one worker that hangs would stop all work.
    """

    def __init__(self, client: Client) -> None:
        self._client, self._last, self._stopped = client, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def seen(self) -> None:
        """Note that a block is finished."""
        self._last = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(min(5.0, STALLED / 4)):
            if time.monotonic() - self._last > STALLED:
                busy = [worker for worker, keys in self._client.processing().items() if keys]
                log.warning("no block was finished for %.0f s; restarting %d workers", STALLED, len(busy))
                self._client.restart_workers(busy, timeout=15, raise_for_error=False)
                self.seen()
