"""Threads stand for the processes that train together."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.compute import scratch
from pipeline.compute.context import Context
from pipeline.compute.engine import Scratch
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.compute.scratch import shared_scratch
from pipeline.errors import MacError

MODULE = "pipeline.errors"


@dataclass(frozen=True)
class _Threads(Ranks):
    """They exchange values in a list."""

    met: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=10))
    said: list[Any] = field(default_factory=list)

    def each(self, value: Any) -> list[Any]:
        self.met.wait()
        self.said[self.rank] = value
        self.met.wait()
        return list(self.said)

    def wait_for_first(self) -> None:
        self.met.wait()


def two() -> list[Ranks]:
    shared = (threading.Barrier(2, timeout=10), [None, None])
    return [_Threads(rank, 2, None, None, *shared) for rank in range(2)]


def entered(where: Path, ranks: Ranks) -> tuple[Path, bool, bool]:
    """The folder, whether it is there, and whether it has what another run left."""
    with shared_scratch(Context("cpu", where), ranks, "train", MODULE, 1) as folder:
        found = folder, folder.is_dir(), (folder / "old").exists()
        ranks.each(0)
        return found


def test_all_get_the_folder_that_process_0_holds_as_soon_as_it_has_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        with shared_scratch(Context("cpu", tmp_path), ALONE, "train", MODULE, 1):
            assert len(list(tmp_path.iterdir())) == 1
        found = list(threads.map(partial(entered, tmp_path), two()))
    assert found[0] == found[1]
    assert found[0][1:] == (True, False)
    assert not any(tmp_path.iterdir())


def test_they_wait_while_another_run_has_it(tmp_path: Path) -> None:
    threads = ThreadPoolExecutor(2)
    hardware = scratch.training_on(Context("cpu", tmp_path).on)
    other = Scratch(tmp_path, "train", MODULE, 1, [hardware] * 2)
    with threads:
        with other:
            (other.folder / "old").touch()
            runs = [threads.submit(entered, tmp_path, ranks) for ranks in two()]
            with pytest.raises(TimeoutError):
                runs[1].result(timeout=0.2)
        assert [run.result() for run in runs] == [(other.folder, True, False)] * 2


def test_a_machine_that_does_not_see_it_is_named_by_all(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        runs = [
            threads.submit(entered, tmp_path / name, ranks)
            for name, ranks in zip(("a", "b"), two(), strict=True)
        ]
    said = {str(run.exception()) for run in runs}
    assert all(isinstance(run.exception(), MacError) for run in runs)
    (line,) = said
    assert line.startswith("process 1 on ")
    assert f"does not see {tmp_path}/a/train-" in line


def test_different_hardware_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = iter(["one CPU, 1 threads", "one CPU, 2 threads"])
    monkeypatch.setattr(scratch, "training_on", lambda _: next(names))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(partial(entered, tmp_path), two()))
    assert "(one CPU, 1 threads; one CPU, 2 threads)" in caplog.text or "2 threads; one CPU, 1" in caplog.text
