"""A cluster that is found or started: what is told where there is none, and who can reach it."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import dask
import psutil
import pytest
import torch
from distributed import LocalCluster, Security

from pipeline.compute import connection
from pipeline.compute.cluster import DaskCluster
from pipeline.errors import MacError


@pytest.fixture(scope="module")
def here() -> Iterator[DaskCluster]:
    """A cluster of two worker processes on this machine."""
    with connection.connect(2, None, "cpu") as found:
        yield found


def test_what_cannot_be_connected_to_is_one_line() -> None:
    with pytest.raises(MacError, match="give one of them"), connection.connect(2, "tcp://127.0.0.1:1", "cpu"):
        pass
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):  # noqa: SIM117
        with pytest.raises(MacError, match=r"^scheduler tcp://127.0.0.1:1: no Dask scheduler answers"):
            with connection.connect(None, "tcp://127.0.0.1:1", "cpu"):
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
        connection._client(address, None)


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
                connection._client(address, None)


def test_a_cluster_here_takes_orders_from_this_process_alone(here: DaskCluster) -> None:
    address = here.client.scheduler.address
    assert address.startswith("tls://")
    with pytest.raises(MacError, match="name your certificates in DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        connection._client(address, None)
    with pytest.raises(MacError, match="no Dask scheduler answers"):
        connection._client(address.replace("tls", "tcp"), None)
    with pytest.raises(MacError, match="no Dask scheduler answers.*certificate"):
        connection._client(address, Security.temporary())


def listening() -> set[str]:
    """The addresses at which this process listens."""
    found = psutil.Process().net_connections("inet")
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}


def test_a_cluster_here_listens_here_alone(here: DaskCluster) -> None:
    assert listening() == {"127.0.0.1"}
    assert set().union(*here.client.run(listening).values()) == {"127.0.0.1"}


def test_too_few_files_are_raised_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(connection.resource, "setrlimit", lambda _what, limits: set_to.append(limits))
    monkeypatch.setattr(connection.resource, "getrlimit", lambda _what: (64, 4096))
    connection._require_files(2)
    assert set_to == [(112, 4096)]
    monkeypatch.setattr(connection.resource, "getrlimit", lambda _what: (100, 100))
    with pytest.raises(MacError, match="^workers: 2 need 112 open files, and 100 are allowed here; "):
        connection._require_files(2)


HERE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("resources", "kind"), [({"GPU": 1}, "cuda"), ({}, HERE)])
def test_the_workers_kind_of_device_counts_not_this_process_s(resources: dict[str, int], kind: str) -> None:
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", resources=resources, dashboard_address=":0"
    ) as there:
        with connection.connect(None, there.scheduler_address, "auto") as found:
            assert found.on.type == kind
        with connection.connect(None, there.scheduler_address, "cpu") as found:
            assert found.on.type == "cpu"
        unknown = connection.connect(None, there.scheduler_address, "gpu")
        with pytest.raises(MacError, match="^device gpu: should be"), unknown:
            pass


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
def test_ctrl_c_does_not_reach_workers_nor_those_started_anew(here: DaskCluster) -> None:
    interrupt = 1 << (signal.SIGINT - 1)
    first = set(here.client.run(os.getpid).values())
    os.kill(min(first), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while len(now := set(here.client.run(os.getpid, on_error="ignore").values())) < 2 or now == first:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    of_workers = here.client.run(signals_blocked)
    assert len(of_workers) == 2
    for threads in of_workers.values():
        assert threads
        assert all(blocked & interrupt for blocked in threads.values())
    assert not signals_blocked()[os.getpid()] & interrupt  # the main thread has the number of its process
