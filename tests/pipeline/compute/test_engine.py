import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.compute import code
from pipeline.compute.code import code_of
from pipeline.compute.engine import Arrays, Block, Repeated, Scratch, Task, Work, blocks, left_in
from pipeline.errors import MacError
from pipeline.store import Place
from tests import in_blocks


def squares(block: Block) -> Arrays:
    return {"square": np.arange(block.start, block.stop) ** 2}


@dataclass
class Squares:
    """Work that keeps count of its blocks, and fails after some."""

    fail_after: int = 1000
    computed: list[int] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        def counting(block: Block) -> Arrays:
            if len(self.computed) == self.fail_after:  # Dask chooses the order
                raise RuntimeError("killed")
            self.computed.append(block.start)
            return squares(block)

        yield counting


def merged(scratch: Scratch, work: Squares, cut: list[Block], threads: int = 1) -> list[tuple[Block, Arrays]]:
    """What is handed on, in the order in which it is."""
    found: list[tuple[Block, Arrays]] = []
    scratch.map_blocks(work, cut, lambda block, arrays: found.append((block, arrays)), threads=threads)
    return found


def values(found: list[tuple[Block, Arrays]]) -> list[int]:
    return np.concatenate([arrays["square"] for _, arrays in found]).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("size", "threads"), [(3, 1), (3, 4), (100, 2)])
def test_blocks_come_in_row_order_whatever_the_cut(tmp_path: Path, size: int, threads: int) -> None:
    with Scratch(tmp_path, "squares", __name__) as scratch:
        found = merged(scratch, Squares(), blocks(10, size), threads)
    assert [block.start for block, _ in found] == list(range(0, 10, size))
    assert values(found) == [row**2 for row in range(10)]


def cut_off(content: bytes) -> bytes:
    return content[:-1]


def one_bit(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize(
    "damage", [cut_off, one_bit, lambda content: b"", lambda content: bytes(len(content))]
)
def test_work_goes_on_after_a_failure_and_a_block_of_a_damaged_record_is_made_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    first, again = Squares(fail_after=2), Squares()
    with pytest.raises(RuntimeError, match="killed"), Scratch(tmp_path, "squares", __name__) as scratch:
        merged(scratch, first, blocks(9, 3))
    done = sorted(scratch.folder.glob("*.safetensors"))
    done[0].write_bytes(damage(done[0].read_bytes()))
    with Scratch(tmp_path, "squares", __name__) as scratch:
        found = merged(scratch, again, blocks(9, 3))
        assert values(found) == [row**2 for row in range(9)]
    assert set(again.computed) == {0, 3, 6} - set(first.computed) | {int(done[0].name[:9])}
    assert len(again.computed) == 2
    assert not scratch.folder.exists()


@pytest.mark.parametrize(("size", "threads"), [(1, 2), (7, 1), (16, 2), (100, 1)])
def test_an_artefact_has_the_same_bytes_whatever_the_cut(tmp_path: Path, size: int, threads: int) -> None:
    found = in_blocks.make(tmp_path, in_blocks.Squares(), size, threads)
    assert found == in_blocks.make(tmp_path / "other", in_blocks.Squares())
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["square"][:], in_blocks.SQUARE)
        assert np.array_equal(file["mask"][:], in_blocks.SQUARE % 3 == 0)
        drawn = np.take_along_axis(file["drawn"][:], in_blocks.ORDER, 1)
        assert np.array_equal(drawn, in_blocks.DRAWN)


def left_by_a_run(tmp_path: Path) -> tuple[Path, list[Path]]:
    """The unfinished artefact and the records of a run that was broken off at row 24 of 40."""
    with pytest.raises(RuntimeError, match="killed"):
        in_blocks.make(tmp_path, in_blocks.Squares(fail_at=24))
    (file,) = tmp_path.glob("scratch/*/a.h5")
    return file, sorted(file.parent.glob("part/*.safetensors"))


def half(file: Path, _record: Path) -> None:
    """The second half of the second block's rows was not written."""
    with h5py.File(file, "r", locking=False) as opened:
        start, row = opened["square"].id.get_offset(), opened["square"].dtype.itemsize * in_blocks.COLUMNS
    with file.open("r+b") as damaged:
        damaged.seek(start + 12 * row)
        damaged.write(bytes(4 * row))


def no_record(_file: Path, record: Path) -> None:
    record.unlink()


@pytest.mark.parametrize("damage", [half, no_record])
def test_a_block_that_is_not_as_its_record_says_is_computed_again(
    tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    file, records = left_by_a_run(tmp_path)
    assert len(records) == 3
    damage(file, records[1])
    again = in_blocks.Squares()
    found = in_blocks.make(tmp_path, again)
    assert found == in_blocks.make(tmp_path / "whole", in_blocks.Squares())
    assert again.computed == [8, 24, 32]
    assert not list((tmp_path / "scratch").iterdir())


@dataclass
class Cluster:
    """Workers on a file system that loses the second half of the second block."""

    folder: Path
    hardware: tuple[str, ...] = ()

    def compute(self, name: str, work: Work, tasks: Sequence[Task], done: Callable[[Block], None]) -> None:
        with work.open() as function:
            for task in tasks:
                done(task.do(function))
        (file,) = self.folder.glob("scratch/*/a.h5")
        half(file, file)

    def keeping(self, name: str, work: Repeated) -> Any:
        raise NotImplementedError


def test_rows_of_workers_that_the_file_system_lost_are_told_and_computed_again(tmp_path: Path) -> None:
    message = r"squares-part: 1 of 5 blocks, rows 8 to 15 first, are not as the workers wrote them: .*; run"
    with pytest.raises(MacError, match=message):
        in_blocks.make(tmp_path, in_blocks.Squares(), cluster=Cluster(tmp_path))
    assert not (tmp_path / "a.h5").exists()
    again = in_blocks.Squares()
    assert in_blocks.make(tmp_path, again) == in_blocks.make(tmp_path / "whole", in_blocks.Squares())
    assert again.computed == [8]


def test_blocks_that_are_there_are_told_before_they_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    is_done = Task.is_done
    monkeypatch.setattr(Task, "is_done", lambda task: told.extend(caplog.messages) or is_done(task))
    with caplog.at_level("INFO"):
        left_by_a_run(tmp_path)
        assert not told
        in_blocks.make(tmp_path, in_blocks.Squares())
    assert "squares-part: 3 of 5 blocks are there from before; they are checked" in told
    assert "squares-part: 3 of 5 blocks were done before" not in told


def test_a_full_disk_is_told_with_the_file_of_the_rows(tmp_path: Path) -> None:
    place = Place(Path("/dev/full"), 0, (4, 2), np.dtype(np.int64))
    task = Task(Block(0, 2), tmp_path / "record", {"square": place.at(0, 2)})
    with pytest.raises(MacError, match=r"^/dev/full: cannot be written \(No space left on device\)$"):
        task.do(lambda _block: {"square": np.zeros((2, 2), np.int64)})
    assert not list(tmp_path.iterdir())


def test_without_the_unfinished_artefact_all_blocks_are_computed_again(tmp_path: Path) -> None:
    left_by_a_run(tmp_path)[0].unlink()
    again = in_blocks.Squares()
    assert in_blocks.make(tmp_path, again) == in_blocks.make(tmp_path / "whole", in_blocks.Squares())
    assert len(again.computed) == 5


def test_an_artefact_has_the_same_bytes_after_kills_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.in_blocks", str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(killed) > 1
    whole = in_blocks.make(tmp_path / "whole", in_blocks.Squares())
    assert (tmp_path / "a.h5").read_bytes() == whole
    assert not list((tmp_path / "scratch").iterdir())


def test_another_fingerprint_or_other_code_is_another_folder(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "a", __name__, {"k": 1})
    assert scratch.folder == Scratch(tmp_path, "a", __name__, {"k": 1}).folder
    assert scratch.folder != Scratch(tmp_path, "a", __name__, {"k": 2}).folder
    assert scratch.folder != Scratch(tmp_path, "a", "pipeline.errors", {"k": 1}).folder


def test_what_other_code_has_done_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run is killed, a module is edited that the work's module imports, and the run goes on."""
    module = "pipeline.steps.features"
    with pytest.raises(RuntimeError, match="killed"), Scratch(tmp_path, "squares", module) as scratch:
        merged(scratch, Squares(fail_after=2), blocks(12, 3))
    edited = code._LOADED["pipeline.network.convnet"] + b"# edited"
    monkeypatch.setitem(code._LOADED, "pipeline.network.convnet", edited)
    code_of.cache_clear()
    again = Squares()
    with caplog.at_level("INFO"), Scratch(tmp_path, "squares", module) as anew:
        merged(anew, again, blocks(12, 3))
    code_of.cache_clear()
    assert len(again.computed) == 4
    assert f"squares: starts anew; the unfinished work in {scratch.folder} (1 in all)" in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.")])
def test_memory_that_runs_out_is_one_line(tmp_path: Path, error: Exception) -> None:
    def function(_block: Block) -> Arrays:
        raise error

    with pytest.raises(MacError, match=r"^rows 3 to 5: memory ran out \("):
        Task(Block(3, 6), tmp_path / "x", {}).do(function)


def test_a_block_is_merged_while_later_ones_are_computed(tmp_path: Path) -> None:
    first = threading.Event()

    @dataclass
    class Waits:
        @contextmanager
        def open(self) -> Iterator[Callable[[Block], Arrays]]:
            yield self.block

        def block(self, block: Block) -> Arrays:
            assert block.start == 0 or first.wait(
                timeout=60
            )  # would wait for ever if merging began at the end
            return squares(block)

    with Scratch(tmp_path, "squares", __name__) as scratch:
        scratch.map_blocks(Waits(), blocks(9, 3), lambda *_: first.set(), threads=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_to_merge_ends_the_work_and_keeps_what_is_done(tmp_path: Path, threads: int) -> None:
    def full(block: Block, _arrays: Arrays) -> None:
        if block.start == 3:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"), Scratch(tmp_path, "squares", __name__) as scratch:
        scratch.map_blocks(Squares(), blocks(9, 3), full, threads=threads)
    kept = {file.name for file in scratch.folder.iterdir()}
    assert {"000000000-000000003.safetensors", "000000003-000000006.safetensors"} <= kept


def test_two_at_the_same_work_take_turns(tmp_path: Path) -> None:
    inside: list[str] = []

    def run(name: str) -> None:
        with Scratch(tmp_path, "squares", __name__) as scratch:
            inside.append(f"{name} in")
            merged(scratch, Squares(), blocks(9, 3))
            time.sleep(0.1)
            inside.append(f"{name} out")

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry[0] for entry in inside[::2]] == [entry[0] for entry in inside[1::2]]
    assert len(inside) == 6
    assert not list(tmp_path.iterdir())


def test_what_is_left_and_what_is_in_use(tmp_path: Path) -> None:
    assert left_in(tmp_path / "none") == []
    with pytest.raises(RuntimeError), Scratch(tmp_path, "broken", __name__) as scratch:
        merged(scratch, Squares(fail_after=1), blocks(9, 3))
    with Scratch(tmp_path, "running", __name__):
        found = {left.path.name.split("-")[0]: left for left in left_in(tmp_path)}
        assert found["running"].in_use
        assert not found["broken"].in_use
        assert found["broken"].bytes > 0
