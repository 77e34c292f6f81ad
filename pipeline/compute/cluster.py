"""Work of the engine in the workers of a Dask cluster: other processes, on this machine or on many.

All workers share a file system, and images, masks and results go through it. Dask itself sends only names and
numbers. A worker opens the work once. If a worker dies, another one computes its block. If no block is
finished for a long time, the busy workers are restarted.
"""

import asyncio
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import torch
from distributed import CancelledError, Client, KilledWorker, WorkerPlugin, as_completed, get_worker
from distributed.comm.core import CommClosedError

from pipeline.compute.code import Code, code_of, difference
from pipeline.compute.device import hardware, pick
from pipeline.compute.engine import Block, Repeated, Task, Work, memory_is_told
from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line

STALLED = 900.0  # seconds without a finished block, then the busy workers are restarted
PARTS = 16  # about so many parts a worker is given at a time, at most: far less than STALLED seconds
TOKEN = ".seen-by-all"
WAITING = 60.0  # seconds between two log lines that say that there are no workers
SAME_PACKAGE = "install the same mac-robust and packages there, and start it again"
Rows = TypeVar("Rows", Block, range)


@dataclass(frozen=True)
class DaskCluster:
    """A running cluster, for the engine.

    Attributes:
        on: the kind of device of its workers. This process may have none.
    """

    client: Client
    on: torch.device

    @cached_property
    def hardware(self) -> tuple[str, ...]:
        """What the workers compute on, that are here now; each model once."""
        found = tuple(sorted(set(answers_of_workers(self.client, _hardware, str(self.on)).values())))
        if len(found) > 1:
            log.warning(
                "the workers compute on %s: the bytes of the result depend on who computes which block",
                " and ".join(found),
            )
        return found

    def compute(self, name: str, work: Work, tasks: Sequence[Task], done: Callable[[Block], None]) -> None:
        """Do the tasks in the workers. `done` is called after each.

        Raises:
            MacError: a block failed for a reason that a user can correct, its workers died repeatedly, or a
                worker has other code.
        """
        folder, token = tasks[0].record.parent, uuid.uuid4().hex
        folder.mkdir(exist_ok=True)
        (folder / TOKEN).write_text(token)
        key = f"{name}-{token[:8]}"
        carrier = _Carrier(key, work, code_of(type(work).__module__), folder, token)
        with self._carried(name, work, carrier) as watch:
            for (block,), _ in self._finished(name, self._submitted(key, tasks), watch):
                done(block)

    @contextmanager
    def keeping(self, name: str, work: Repeated) -> Iterator[Callable[[Sequence[range], Any], list[Any]]]:
        """Workers that keep the work open: a function of parts and an argument, to what each part gives.

        Raises:
            MacError: as `compute`, and in the function.
        """
        key = f"{name}-{uuid.uuid4().hex[:8]}"
        carrier = _Carrier(key, work, code_of(type(work).__module__), None, "")
        with self._carried(name, work, carrier) as watch:

            def each(parts: Sequence[range], argument: Any) -> list[Any]:
                watch.seen()  # what this process did meanwhile is no stall
                workers, futures = _computing(self.client), {}
                many, options = max(1, len(workers)), {"pure": False, "resources": _wanted(workers)}
                # The argument goes with each share: once to a worker, if it has at most PARTS parts to do.
                # All shares have about as many rows, so the slowest worker is waited for.
                shares = _shares(parts, many * ceil(len(parts) / (many * PARTS)))
                for share in shares:
                    future = self.client.submit(_answer_on_worker, key, share, argument, **options)
                    futures[future] = share
                found = dict(self._finished(name, futures, watch))
                return list(chain.from_iterable(map(found.__getitem__, shares)))

            yield each

    @contextmanager
    def _carried(self, name: str, work: Work | Repeated, carrier: "_Carrier") -> Iterator["_Watch"]:
        """The workers have the work, and are watched."""
        module = type(work).__module__
        for where, its in answers_of_workers(self.client, code_of, module).items():
            _require_same(code_of(module), its, where)
        try:
            self.client.register_plugin(carrier)
        except CommClosedError:
            raise
        except Exception as error:  # an error in a worker is raised here as a bare Exception
            raise MacError(f"{name}: a worker cannot take the work ({first_line(error)})") from error
        watch = _Watch(self.client)
        try:
            yield watch
        finally:
            watch.stop()
            if self.client.status == "running":
                self.client.unregister_worker_plugin(carrier.name)

    def _finished(
        self, name: str, futures: Mapping[Any, tuple[Rows, ...]], watch: "_Watch"
    ) -> Iterator[tuple[tuple[Rows, ...], Any]]:
        """The blocks or parts of each future that is finished, and its result."""
        for future in as_completed(futures):
            rows = futures[future]
            try:
                result = future.result()
            except KilledWorker as error:
                raise MacError(
                    f"{name}: {error.allowed_failures + 1} workers died of rows {rows[0].start} to "
                    f"{rows[-1].stop - 1}, one at {error.last_worker.address}; did their memory run out? "
                    "Use fewer on a machine"
                ) from None
            yield rows, result
            watch.seen()
            future.release()

    def _submitted(self, key: str, tasks: Sequence[Task]) -> dict[Any, tuple[Block]]:
        """Each block's future."""
        wanted, futures = _wanted(_computing(self.client)), {}
        for task in tasks:
            name = f"{key}-{task.block.start:09d}"
            future = self.client.submit(_on_worker, key, task, key=name, pure=False, resources=wanted)
            futures[future] = (task.block,)
        return futures


def _shares(parts: Sequence[range], many: int) -> list[tuple[range, ...]]:
    """Neighbouring parts together, in `many` shares of about as many rows; fewer, if there are few parts."""
    ends = list(accumulate(map(len, parts)))
    shares: list[list[range]] = [[] for _ in range(many)]
    for part, end in zip(parts, ends, strict=True):
        shares[int(many * (end - len(part) / 2) / ends[-1])].append(part)
    return [tuple(share) for share in shares if share]


class _Carrier(WorkerPlugin):
    """Brings the work to every worker, also to later ones. A worker opens it for its first block.

    A worker whose code of the work is other than `code` refuses, and one that does not see the token in the
    folder, if there is a folder.
    """

    def __init__(self, name: str, work: Work | Repeated, code: Code, folder: Path | None, token: str) -> None:
        self.name, self._work, self._code, self._folder, self._token = name, work, code, folder, token

    def setup(self, worker: Any) -> None:
        self._lock, self._opened = threading.Lock(), ExitStack()
        self._function: Callable[..., Any] | None = None
        self._where = f"worker {worker.address} on {socket.gethostname()}"

    def teardown(self, worker: Any) -> None:
        self._opened.close()

    def run(self, task: Task) -> Block:
        """Compute a block and write what it gives.

        One block at a time, because the function itself uses all cores, or the GPU.

        Raises:
            MacError: names the worker.
        """
        with self._lock:
            function = self._opened_function()
            with self._told():
                return task.do(function)

    def answer(self, parts: Sequence[range], argument: Any) -> list[Any]:
        """What each part of repeated work gives; like `run`."""
        with self._lock:
            function = self._opened_function()
            with self._told():
                return [function(part, argument) for part in parts]

    def _opened_function(self) -> Callable[..., Any]:
        """The work's function."""
        if self._function is None:
            _require_same(self._code, code_of(type(self._work).__module__), self._where)
            if self._folder is not None:
                self._look_for(self._folder)
            if "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(max(1, get_worker().state.nthreads))
            with self._told():
                work: AbstractContextManager[Callable[..., Any]] = self._work.open()
                self._function = self._opened.enter_context(work)
        return self._function

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Name the worker in what it cannot do."""
        with memory_is_told(self._where):
            try:
                yield
            except ImportError as error:
                raise MacError(f"{self._where}: {first_line(error)}; {SAME_PACKAGE}") from None
            except (MacError, OSError) as error:
                raise MacError(f"{error} ({self._where})") from None

    def _look_for(self, folder: Path) -> None:
        try:
            seen = (folder / TOKEN).read_text() == self._token
        except OSError:
            seen = False
        if not seen:
            raise MacError(
                f"{self._where} does not see {folder}: "
                "all workers need the same file system, under the same path"
            )


def _require_same(here: Code, there: Code, where: str) -> None:
    """Refuse a worker with other code than here."""
    if differs := difference(here, there):
        raise MacError(f"{where} has other code than this process ({differs}); {SAME_PACKAGE}")


def _on_worker(name: str, task: Task) -> Block:
    carrier = get_worker().plugins[name]
    assert isinstance(carrier, _Carrier)
    return carrier.run(task)


def _answer_on_worker(name: str, parts: Sequence[range], argument: Any) -> list[Any]:
    carrier = get_worker().plugins[name]
    assert isinstance(carrier, _Carrier)
    return carrier.answer(parts, argument)


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler says of its workers, by their addresses.

    Not `client.scheduler_info`: the client asks for itself, too, every two seconds, without the workers. If
    that answer comes in between, it is what one gets.

    Raises:
        CommClosedError: the scheduler is lost.
    """
    if client.scheduler is None:
        raise CommClosedError("no scheduler")
    try:
        workers: dict[str, dict[str, Any]] = client.sync(client.scheduler.identity)["workers"]
    except OSError as error:  # one that has just ended: its address cannot be connected to
        raise CommClosedError(str(error)) from None
    return workers


def wait_for_a_worker(client: Client, address: str) -> None:
    """Wait until the scheduler at this address has a worker; say it every WAITING seconds."""
    while not workers_of(client):
        log.warning("scheduler %s has no workers; waiting for one: 'dask worker %s'", address, address)
        with suppress(asyncio.TimeoutError):
            client.wait_for_workers(1, timeout=WAITING)


def has_gpu(worker: Mapping[str, Any]) -> bool:
    """Whether a worker declares the resource `GPU`."""
    return "GPU" in worker["resources"]


def _computing(client: Client) -> dict[str, dict[str, Any]]:
    """The workers that compute, as `workers_of`: if any has a GPU, those that have one."""
    workers = workers_of(client)
    return {address: worker for address, worker in workers.items() if has_gpu(worker)} or workers


def _wanted(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, int] | None:
    """What of one of these workers a block or share takes."""
    return {"GPU": 1} if any(map(has_gpu, workers.values())) else None


def answers_of_workers(client: Client, function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """What a function of this package, or of PyTorch, says in every worker that computes, by its name.

    Raises:
        MacError: it fails in one of them, or none is there any more.
    """
    workers = _computing(client)
    answers: dict[str, Any] = client.run(function, *arguments, workers=list(workers), on_error="return")
    said = {}
    for address, answer in answers.items():
        where = f"worker {address} on {workers[address]['host']}"
        if isinstance(answer, MacError):
            raise answer
        if isinstance(answer, OSError):  # the worker is gone; another one will be asked when it computes
            continue
        if isinstance(answer, BaseException):
            raise MacError(f"{where} has other code than this process ({first_line(answer)}); {SAME_PACKAGE}")
        said[where] = answer
    if not said:
        raise MacError("all workers are gone; start them again, and run the same command")
    return said


def _hardware(device: str) -> str:
    return hardware(pick(device))


class _Watch:
    """Restarts the busy workers if no block is finished for STALLED seconds; says it if there are none.

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
        said = -WAITING
        while not self._stopped.wait(min(5.0, STALLED / 4)):
            # Whether the scheduler is lost is seen by who waits for the blocks.
            with suppress(OSError, CancelledError, asyncio.CancelledError):
                now = time.monotonic()
                if workers_of(self._client):
                    self._restart_if_stalled()
                elif now - said >= WAITING:
                    said = now
                    log.warning("no workers are left; waiting for new ones")

    def _restart_if_stalled(self) -> None:
        if self._client.futures and time.monotonic() - self._last > STALLED:  # else nothing is wanted
            busy = [worker for worker, keys in self._client.processing().items() if keys]
            log.warning("no block was finished for %.0f s; restarting %d workers", STALLED, len(busy))
            self._client.restart_workers(busy, timeout=15, raise_for_error=False)
            self.seen()
