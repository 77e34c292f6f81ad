"""A Dask cluster, found at an address or started here.

Dask runs what it is sent: who reaches a scheduler can run any code in its workers. A cluster that is started
here takes orders only from this process, by TLS with a key that is nowhere else.
"""

import asyncio
import logging
import resource
import signal
import ssl
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import Any
from urllib.parse import urlsplit

import dask
import torch
from dask.utils import parse_timedelta
from distributed import CancelledError, Client, Nanny, Scheduler, Security, SpecCluster
from distributed.comm.core import CommClosedError
from distributed.comm.core import connect as open_comm
from distributed.versions import VersionMismatchWarning

from pipeline.compute.cluster import (
    DaskCluster,
    answers_of_workers,
    has_gpu,
    wait_for_a_worker,
    workers_of,
)
from pipeline.compute.device import named, pick
from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line
from pipeline.machine import usable_cores

SETTINGS = {
    "distributed.scheduler.allowed-failures": 10,  # so many workers may die of the same block
    "distributed.admin.large-graph-warning-threshold": "1GB",  # a head of many classes goes with a task
}
FILES = (64, 24)  # files that a cluster here has open: at first, and for each worker
HERE = "127.0.0.1"
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
def connect(workers: int | None, address: str | None, device: str) -> Iterator[DaskCluster]:
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
        stack.enter_context(dask.config.set(SETTINGS))
        security = None  # as Dask's configuration says
        if workers is not None:
            device = pick(device).type  # new workers have this machine's devices: no need to ask them
            local = stack.enter_context(_local(workers, device))
            address, security = local.scheduler_address, local.security
        assert address is not None
        stack.enter_context(_lost_is_told(address, workers is None))
        client = stack.enter_context(_client(address, security))
        wait_for_a_worker(client, address)
        log.info("Dask cluster of %d workers, dashboard: %s", len(workers_of(client)), _dashboard(client))
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
    except (TimeoutError, CancelledError, asyncio.CancelledError, CommClosedError) as error:
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
    found: Any = client.get_versions()
    here, there = found["client"]["packages"], {"the scheduler": found["scheduler"], **found["workers"]}
    said = []
    for who, answer in there.items():
        packages = answer["packages"] if answer else {}
        names = [f"{name} {its}" for name, its in sorted(packages.items()) if its != here.get(name)]
        if names:
            said.append(f"{who} has {', '.join(names)}")
    wanted = ", ".join(f"{name} {its}" for name, its in sorted(here.items()) if f" {name} " in " ".join(said))
    return f"{said[0]}; here: {wanted}; use the same versions" if said else "other versions than here"


def _dashboard(client: Client) -> str:
    if find_spec("bokeh"):
        return str(client.dashboard_link)
    return f"{client.dashboard_link} (needs bokeh: pip install 'mac-robust[dashboard]')"


def _kind(client: Client, device: str) -> torch.device:
    """The kind of device that the workers compute on."""
    if device != "auto":
        return named(device)
    if any(map(has_gpu, workers_of(client).values())):
        return named("cuda")
    return named("cuda" if all(answers_of_workers(client, torch.cuda.is_available).values()) else "cpu")


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
