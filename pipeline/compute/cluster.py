"""Blocks of the engine on a Dask cluster: workers in other processes, on this machine or on many.

All workers share a file system, and images, masks and results go through it. Dask itself sends only names and
numbers. A worker opens the work once. If a worker dies, another one computes its block. If no block is
finished for a long time, the busy workers are restarted.

Dask runs what it is sent: who reaches a scheduler can run any code in its workers. A cluster that is started
here takes orders only from this process, by TLS with a key that is nowhere else.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import dask
import torch
from dask.utils import parse_timedelta
from distributed import (
    CancelledError,
    Client,
    KilledWorker,
    Nanny,
    Scheduler,
    Security,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.comm.core import CommClosedError
from distributed.comm.core import connect as open_comm
from distributed.versions import VersionMismatchWarning

from pipeline.compute.code import Code, code_of, difference
from pipeline.compute.device import hardware, named, pick
from pipeline.compute.engine import Block, Repeated, Task, Work, memory_is_told
from pipeline.compute.machine import usable_cores
from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line

STALLED = 900.0  # seconds without a finished block, then the busy workers are restarted
FAILURES = 10  # how many workers may die of the same block
TOKEN = ".seen-by-all"
WAITING = 60.0  # seconds between two log lines that say that there are no workers
FILES = (64, 24)  # files that a cluster here has open: at first, and for each worker
SAME_PACKAGE = "install the same mac-robust and packages there, and start it again"
HERE = "127.0.0.1"
Rows = TypeVar("Rows", Block, range)
SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "ucxx")
# Dask logs every broken connection. What matters is also raised as an exception.
LOGGERS = (
    "distributed",
    "distributed.client",
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

    Without any worker, it waits for the first one, and says so.

    Raises:
        MacError: both `workers` and `address` are given, no scheduler answers or it is lost, the workers do
            not have this package, there are more workers than GPUs, or they cannot be started.
    """
    if workers is not None and address is not None:
        raise MacError(
            "a number of workers starts a cluster here, and a scheduler's address names one that runs: "
            "give one of them"
        )
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(_quiet_when_interrupted())
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": FAILURES}))
        security = None  # as Dask's configuration says
        if workers is not None:
            device = pick(device).type  # new workers have this machine's devices: no need to ask them
            local = stack.enter_context(_local(workers, device))
            address, security = local.scheduler_address, local.security
        assert address is not None
        stack.enter_context(_lost_is_told(address, workers is None))
        client = stack.enter_context(_client(address, security))
        _wait_for_a_worker(client, address)
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


@contextmanager
def _lost_is_told(address: str, is_theirs: bool) -> Iterator[None]:
    """Say in one line that the scheduler, the user's or one that was started here, answers no more."""
    try:
        yield
    except (CancelledError, asyncio.CancelledError, asyncio.TimeoutError, CommClosedError) as error:
        if isinstance(error, OSError) and error.errno:  # of a file system
            raise
        start = "if it has ended, start it and its workers again; then" if is_theirs else "run it again:"
        raise MacError(
            f"scheduler {address}: the connection is lost; {start} the same command continues where it was"
        ) from None


def _client(address: str, security: Security | None) -> Client:
    """A connection to a scheduler.

    Raises:
        MacError: the address has no host and port, or no scheduler answers there.
    """
    _require_host_and_port(address)
    timeout = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    try:
        security = security or Security()
        asyncio.run(asyncio.wait_for(_answer(address, timeout, security), timeout + 1))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", VersionMismatchWarning)
            client = Client(address, timeout=timeout, security=security)
    except Exception as error:  # what is there may be anything
        raise MacError(
            f"scheduler {address}: no Dask scheduler answers ({_reason(error)}); {_remedy(address, error)}"
        ) from None
    if any(issubclass(each.category, VersionMismatchWarning) for each in said):
        log.warning("scheduler %s: %s", address, _other_versions(client))
    return client


def _require_host_and_port(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    with suppress(ValueError):  # the port is no number, or too large
        if parts.hostname and parts.port and parts.scheme in SCHEMES:
            return
    raise MacError(f"scheduler {address}: should be tcp://host:port or tls://host:port")


async def _answer(address: str, timeout: float, security: Security) -> None:
    """Wait until who listens there answers as Dask does. Dask's client would wait for ever."""
    comm = await open_comm(address, timeout=timeout, **security.get_connection_args("client"))
    await comm.close()


def _reason(error: BaseException) -> str:
    """Why there is no connection: its first cause."""
    if isinstance(error, asyncio.TimeoutError) and not str(error):
        return "who listens there does not speak Dask's protocol"
    while isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, asyncio.TimeoutError):
        error = error.__cause__
    return str(error) if isinstance(error, ssl.SSLError) else first_line(error)  # its numbers are its own


def _remedy(address: str, error: BaseException) -> str:
    if address.startswith("tls:") and isinstance(error, TypeError):  # Dask has no certificates to show
        names = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__TLS__CLIENT__CERT and …__TLS__CLIENT__KEY"
        return f"name your certificates in {names}"
    return "start one with 'dask scheduler', or correct the address"


def _other_versions(client: Client) -> str:
    """Where Python or a package that carries the work is another than here."""
    asked: Any = client.get_versions()
    here, there = asked["client"]["packages"], {"the scheduler": asked["scheduler"], **asked["workers"]}
    said = []
    for who, answer in there.items():
        packages = answer["packages"] if answer else {}
        names = [f"{name} {its}" for name, its in sorted(packages.items()) if its != here.get(name)]
        if names:
            said.append(f"{who} has {', '.join(names)}")
    wanted = ", ".join(f"{name} {its}" for name, its in sorted(here.items()) if f" {name} " in " ".join(said))
    return f"{said[0]}; here: {wanted}; use the same versions" if said else "other versions than here"


def _wait_for_a_worker(client: Client, address: str) -> None:
    while not _workers(client):
        log.warning("scheduler %s has no workers; waiting for one: 'dask worker %s'", address, address)
        with suppress(asyncio.TimeoutError):
            client.wait_for_workers(1, timeout=WAITING)


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
    return named("cuda" if all(_asked(client, torch.cuda.is_available).values()) else "cpu")


def _asked(client: Client, function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """What a function of this package, or of PyTorch, says in every worker that computes, by its name.

    Raises:
        MacError: it fails in one of them, or none is there any more.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if _has_gpu(list(workers.values())):
        workers = {address: worker for address, worker in workers.items() if "GPU" in worker["resources"]}
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
            "host": HERE,
            "nthreads": 1,
            "env": environment,
            "memory_limit": 0,
            "resources": {"GPU": 1} if gpus else {},
            "silence_logs": 50,
            **transport,
        }

    _require_files(workers)
    # Without TLS, every user of this machine could run code in the workers.
    transport = {"security": Security.temporary(), "protocol": "tls://"}
    addresses = {"host": HERE, "port": 0, "dashboard_address": f"{HERE}:0"}
    # Ctrl-C must reach this process only. A signal that is blocked here stays blocked in the threads that
    # start here, and in the workers that these threads start, now and later.
    resource_tracker.ensure_running()  # if multiprocessing started it later, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return SpecCluster(
            workers={number: {"cls": Nanny, "options": options(number)} for number in range(workers)},
            scheduler={"cls": Scheduler, "options": addresses | transport},
            security=transport["security"],
            silence_logs=50,
        )
    except (OSError, RuntimeError) as error:
        raise MacError(
            f"workers: {workers} processes cannot be started ({_reason(error)}); ask for fewer"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _require_files(workers: int) -> None:
    """Let this process have as many files open as so many workers need, if the system allows it."""
    needed = FILES[0] + FILES[1] * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise MacError(
            f"workers: {workers} need {needed} open files, and {hard} are allowed here; "
            "ask for fewer, or raise the limit ('ulimit -Hn')"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


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

    def answer(self, part: range, argument: Any) -> Any:
        """What a part of repeated work gives; like `run`."""
        with self._lock:
            function = self._opened_function()
            with self._told():
                return function(part, argument)

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


def _answer_on_worker(name: str, part: range, argument: Any) -> Any:
    carrier = get_worker().plugins[name]
    assert isinstance(carrier, _Carrier)
    return carrier.answer(part, argument)


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
        found = tuple(sorted(set(_asked(self.client, _hardware, str(self.on)).values())))
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
            for block, _ in self._finished(name, self._submitted(key, tasks), watch):
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
            options = {"pure": False, "resources": self._wanted()}

            def each(parts: Sequence[range], argument: Any) -> list[Any]:
                watch.seen()  # what this process did meanwhile is no stall
                futures = {}
                for part in parts:
                    future = self.client.submit(_answer_on_worker, key, part, argument, **options)
                    futures[future] = part
                found = dict(self._finished(name, futures, watch))
                return [found[part] for part in parts]

            yield each

    @contextmanager
    def _carried(self, name: str, work: Work | Repeated, carrier: "_Carrier") -> Iterator["_Watch"]:
        """The workers have the work, and are watched."""
        module = type(work).__module__
        for where, its in _asked(self.client, code_of, module).items():
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
        self, name: str, futures: Mapping[Any, Rows], watch: "_Watch"
    ) -> Iterator[tuple[Rows, Any]]:
        """The rows of each future that is finished, and its result."""
        for future in as_completed(futures):
            rows = futures[future]
            try:
                result = future.result()
            except KilledWorker as error:
                raise MacError(
                    f"{name}: {FAILURES} workers died of rows {rows.start} to {rows.stop - 1}, one at "
                    f"{error.last_worker.address}; did their memory run out? Use fewer on a machine"
                ) from None
            yield rows, result
            watch.seen()
            future.release()

    def _wanted(self) -> dict[str, int] | None:
        """What of a worker a block or part takes."""
        return {"GPU": 1} if _has_gpu(_workers(self.client)) else None

    def _submitted(self, key: str, tasks: Sequence[Task]) -> dict[Any, Block]:
        """Each block's future."""
        wanted, futures = self._wanted(), {}
        for task in tasks:
            name = f"{key}-{task.block.start:09d}"
            future = self.client.submit(_on_worker, key, task, key=name, pure=False, resources=wanted)
            futures[future] = task.block
        return futures


def _workers(client: Client) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _has_gpu(workers: list[dict[str, Any]]) -> bool:
    """Whether any worker declares the resource `GPU`."""
    return any("GPU" in worker["resources"] for worker in workers)


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
                if _workers(self._client):
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
