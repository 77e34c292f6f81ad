"""Workers in other processes, on this machine or many: blocks of the engine on a Dask cluster.

Images, masks and shards move through the file system that all share; the scheduler sees names and numbers alone. A worker opens the
work once. Blocks of a worker that dies are done by another; a worker that makes no sign, or no progress, is started anew.
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
from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster, WorkerPlugin, as_completed, get_worker

from pipeline.compute.device import named, pick
from pipeline.compute.engine import Arrays, Block, Work, write_shard
from pipeline.compute.machine import usable_cores
from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line

STALLED = 900.0  # seconds without any block done, after which the workers that have one are started anew
FAILURES = 10  # workers that may die of one block
TOKEN = ".seen-by-all"


@contextmanager
def connect(workers: int | None, address: str | None, device: str) -> Iterator["DaskCluster"]:
    """The cluster at `address`, or one with `workers` processes on this machine.

    On CUDA devices each local worker has a GPU of its own; elsewhere the cores are divided among them.

    Args:
        device: as `pick` takes it, but the workers': `auto` is CUDA where they declare `GPU`, or all have it.

    Raises:
        MacError: both given, no scheduler there, no workers that have this package, or more workers than GPUs.
    """
    if workers is not None and address is not None:
        raise MacError("--workers starts a cluster here, --scheduler-address takes one that is there: give one of them")
    for name in ("distributed", "distributed.http.proxy", "distributed.scheduler", "distributed.nanny", "distributed.core"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": FAILURES}))
        if workers is not None:
            device = pick(device).type  # theirs is this machine's: they need not be asked
            address = stack.enter_context(_local(workers, device)).scheduler_address
        try:
            client = stack.enter_context(Client(address, timeout=dask.config.get("distributed.comm.timeouts.connect")))
        except (OSError, ValueError) as error:
            raise MacError(
                f"--scheduler-address {address}: no Dask scheduler answers ({first_line(error)}); start one with 'dask scheduler'"
            ) from None
        page = (
            client.dashboard_link if find_spec("bokeh") else f"{client.dashboard_link} (needs bokeh: pip install 'mac-robust[dashboard]')"
        )
        log.info("Dask cluster of %d workers, dashboard: %s", len(_workers(client)), page)
        yield DaskCluster(client, _kind(client, device))


def _kind(client: Client, device: str) -> torch.device:
    """What the workers compute on."""
    if device != "auto":
        return named(device)
    workers = _workers(client)
    if any("GPU" in worker["resources"] for worker in workers):
        return named("cuda")
    try:
        return named("cuda" if workers and all(client.run(torch.cuda.is_available).values()) else "cpu")
    except Exception as error:  # whatever a worker could not import comes back as it was raised there
        raise MacError(f"the workers cannot say what they compute on ({first_line(error)}); install mac-robust on all of them") from error


def _local(workers: int, kind: str) -> SpecCluster:
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    if gpus and workers > gpus:
        raise MacError(f"--workers {workers}: one worker a GPU, and there are {gpus}; give --workers {gpus} or --device cpu")
    threads = str(max(1, usable_cores() // workers))

    def options(number: int) -> dict[str, Any]:
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        gpu = {"CUDA_VISIBLE_DEVICES": str(number)} if gpus else {}
        return {"nthreads": 1, "env": environment | gpu, "memory_limit": 0, "resources": {"GPU": 1} if gpus else {}, "silence_logs": 50}

    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    # Ctrl-C is for this process alone: it is blocked in the threads that begin here, and in the workers that these start, now and anew.
    resource_tracker.ensure_running()  # multiprocessing would unblock it for that
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return SpecCluster(
            workers={number: {"cls": Nanny, "options": options(number)} for number in range(workers)}, scheduler=scheduler, silence_logs=50
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Carrier(WorkerPlugin):
    """Takes the work to every worker, those that join later too, and opens it there for the first block."""

    def __init__(self, name: str, work: Work, folder: Path, token: str) -> None:
        self.name, self._work, self._folder, self._token = name, work, folder, token

    def setup(self, worker: Any) -> None:
        self._lock, self._opened = threading.Lock(), ExitStack()
        self._function: Callable[[Block], Arrays] | None = None
        self._at = worker.address

    def teardown(self, worker: Any) -> None:
        self._opened.close()

    def run(self, block: Block, path: Path) -> Block:
        """One block at a time: the function itself uses the worker's cores, or its GPU."""
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
                f"worker {self._at} on {socket.gethostname()} does not see {self._folder}: all workers need the same file system, "
                "under the same path"
            )


def _on_worker(name: str, block: Block, path: Path) -> Block:
    carrier = get_worker().plugins[name]
    assert isinstance(carrier, _Carrier)
    return carrier.run(block, path)


@dataclass(frozen=True)
class DaskCluster:
    """A cluster that is there, for the engine; `on` is the kind of device of its workers, which this process need not have."""

    client: Client
    on: torch.device

    def compute(self, name: str, work: Work, missing: Mapping[Block, Path], done: Callable[[Block], None]) -> None:
        """Compute the blocks and write their shards on the cluster's workers; `done` is called for each.

        Raises:
            MacError: a block failed for a reason that a user can mend, or its workers died again and again.
        """
        client = self.client
        folder, token = next(iter(missing.values())).parent, uuid.uuid4().hex
        (folder / TOKEN).write_text(token)
        key = f"{name}-{token[:8]}"
        wanted = {"GPU": 1} if any("GPU" in worker["resources"] for worker in _workers(client)) else None
        try:
            client.register_plugin(_Carrier(key, work, folder, token))
        except Exception as error:  # whatever the worker could not do with it comes back as a bare Exception
            raise MacError(
                f"{name}: the workers cannot take the work ({first_line(error)}); install the same mac-robust on all of them"
            ) from error
        watch = _Watch(client)
        try:
            futures = {
                client.submit(_on_worker, key, block, path, key=f"{key}-{block.start:09d}", pure=False, resources=wanted): block
                for block, path in missing.items()
            }
            for future in as_completed(futures):
                try:
                    done(future.result())
                except KilledWorker:
                    block = futures[future]
                    raise MacError(
                        f"{name}: {FAILURES} workers died of rows {block.start} to {block.stop - 1}; did their memory run out?"
                    ) from None
                watch.seen()
                future.release()
        finally:
            watch.stop()
            if client.status == "running":
                client.unregister_worker_plugin(key)


def _workers(client: Client) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


class _Watch:
    """Starts workers anew that hold a block when no block has been done for long: one that hangs would hold up all."""

    def __init__(self, client: Client) -> None:
        self._client, self._last, self._stopped = client, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def seen(self) -> None:
        """A block is done."""
        self._last = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(min(5.0, STALLED / 4)):
            if time.monotonic() - self._last > STALLED:
                busy = [worker for worker, keys in self._client.processing().items() if keys]
                log.warning("no block done for %.0f s; starting %d workers anew", STALLED, len(busy))
                self._client.restart_workers(busy, timeout=60, raise_for_error=False)
                self.seen()
