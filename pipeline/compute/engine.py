"""Bulk work in blocks of rows. Dask computes each block; whoever computes it writes its rows to their places.

    Work ─ open() ─► function of a block ─┬─► rows at their places in the artefact, or packed for it
                                          └─► the block's record ─► merged by the stage, in row order

Blocks are merged while later ones are still computed.

A stage that was killed continues with the blocks whose records it finds. A record is a small safetensors
file. It has the digests of the rows that are at their places, and all else that the block gave. It is written
after these rows, under a temporary name, and then renamed. The name of the scratch folder contains the
fingerprint of everything that its blocks depend on, the code too; each record contains the digest of its
contents; and before a record is used again, the rows are read, and compared with their digests. So a block
that is found equals the one that would be computed. So are the rows that other machines wrote, after all are
written. The bytes do not depend on where the work runs: in this process, or in the workers of
`pipeline.compute.cluster`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pipeline.compute.code import code_of
from pipeline.compute.progress import Progress, log
from pipeline.errors import MacError, first_line
from pipeline.machine import usable_cores
from pipeline.store import Rows, Target, digest_of, replacing, tensor_errors

Arrays = Mapping[str, NDArray[Any]]
Into = Mapping[str, Rows]  # where rows go, by the name of their array


@dataclass(frozen=True)
class Block:
    """The rows from `start` to `stop` − 1."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


def blocks(rows: int, size: int) -> list[Block]:
    """Cut `rows` rows into blocks of `size` rows; the last one may have fewer."""
    return [Block(start, min(start + size, rows)) for start in range(0, rows, size)]


class Work(Protocol):
    """The work to do on blocks of rows.

    It is pickled and sent to workers, so it has paths, not open files.
    """

    def open(self) -> AbstractContextManager[Callable[[Block], Arrays]]:
        """Open the files and load the model, once in each process; yield a pure function of a block."""


class Repeated(Protocol):
    """Work on parts of the rows that is done again and again, each time with another argument.

    It is pickled and sent to workers, like `Work`.
    """

    def open(self) -> AbstractContextManager[Callable[[range, Any], Any]]:
        """Open the files, once in each process; yield a pure function of a part and an argument."""


@dataclass(frozen=True)
class Task:
    """A block, and where what is computed of it goes.

    Attributes:
        record: the file of the block's record.
        targets: where rows go, by the name of their array. All other arrays go into the record.
    """

    block: Block
    record: Path
    targets: Mapping[str, Target]

    def do(self, function: Callable[[Block], Arrays]) -> Block:
        """Compute the block, write its rows and then its record; returns the block.

        Raises:
            MacError: memory ran out, or something cannot be written.
        """
        with memory_is_told(f"rows {self.block.start} to {self.block.stop - 1}"):
            computed = function(self.block)
        kept: dict[str, NDArray[Any]] = {}
        for name, array in computed.items():
            if name in self.targets:
                its = self.targets[name].write(array)
                kept |= {f"{name}/{key}": each for key, each in its.items()}
            else:
                kept[name] = np.ascontiguousarray(array)
        with replacing(self.record, durable=False) as temporary, tensor_errors():
            save_file(kept, temporary, {"sha256": _digest(kept)})
        return self.block

    def is_done(self) -> bool:
        """Whether the record is there and holds what was written, and the rows too."""
        try:
            with safe_open(self.record, "numpy") as file:
                written = (file.metadata() or {}).get("sha256")
            kept = load_file(self.record)
            return written == _digest(kept) and all(
                target.holds(_of(name, kept)) for name, target in self.targets.items()
            )
        except (OSError, SafetensorError, ValueError, TypeError, KeyError):
            return False


def _of(name: str, kept: Arrays) -> Arrays:
    """What was kept of the rows of an array."""
    return {key.removeprefix(f"{name}/"): each for key, each in kept.items() if key.startswith(f"{name}/")}


class Cluster(Protocol):
    """Other processes that compute instead of this one; see `pipeline.compute.cluster`.

    Attributes:
        hardware: what they compute on; see `pipeline.compute.device.hardware`.
    """

    @property
    def hardware(self) -> tuple[str, ...]: ...

    def compute(self, name: str, work: Work, tasks: Sequence[Task], done: Callable[[Block], None]) -> None:
        """Do the tasks. `done` is called after each."""

    def keeping(
        self, name: str, work: Repeated
    ) -> AbstractContextManager[Callable[[Sequence[range], Any], list[Any]]]:
        """Workers that keep the work open: a function of parts and an argument, to what each part gives."""


Merge = Callable[[Block, Arrays], None]  # what a stage does with a computed block


class Scratch:
    """The scratch folder of one computation, such as `<data>/scratch/saliency-1f0c…`.

    While the context is open, only this process uses it. If the context ends without an exception, the folder
    is deleted. If not, it is kept, and the next run continues from there.

    Args:
        scratch: the folder in which it is made.
        name: the name of the computation.
        module: the name of the module whose code computes, `__name__` of a stage's module.
        fingerprint: JSON-able values; if one of them is different, it is another computation.
    """

    def __init__(self, scratch: Path, name: str, module: str, *fingerprint: object) -> None:
        digest = digest_of(name, code_of(module), *fingerprint)
        self.folder = scratch.resolve() / f"{name}-{digest[:16]}"
        self.name = name

    def __enter__(self) -> "Scratch":
        if not self.folder.exists():
            self._say_what_does_not_fit()
        try:
            self._lock = _locked(self.folder)
        except OSError as error:
            raise MacError(f"{self.folder}: cannot be written ({first_line(error)})") from error
        return self

    def _say_what_does_not_fit(self) -> None:
        """Log that unfinished work of this name is there which cannot be taken up."""
        others = list(self.folder.parent.glob(f"{self.name}-{'[0-9a-f]' * 16}"))
        if left := [other for other in others if not _in_use(other)]:
            log.info(
                "%s: starts anew; the unfinished work in %s (%d in all) is of other code, inputs, parameters "
                "or hardware",
                *(self.name, left[-1], len(left)),
            )

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def map_blocks(
        self,
        work: Work,
        cut: list[Block],
        merge: Merge | None = None,
        into: Into | None = None,
        part: str = "",
        threads: int = 1,
        cluster: Cluster | None = None,
    ) -> None:
        """Compute the blocks that are not done yet, and pass the records of all to `merge` in row order.

        Args:
            merge: called in a thread of its own, with one block at a time. It gets a block as soon as this
                block and all blocks before it are computed. Of an array `x` that goes to its place, it gets
                `x/digest`, the sha256 of each row.
            into: where rows go, by the name of their array.
            part: the name of this work, if the computation has several.
            threads: how many blocks this process computes at a time. It is 1 if the function itself uses all
                cores, or a GPU.
            cluster: computes instead of this process.

        Raises:
            MacError: a block failed for a reason that a user can correct.
        """
        into, name = into or {}, f"{self.name}-{part}" if part else self.name
        tasks = []
        for block in cut:
            record = self._record(block, part)
            targets = {each: rows.at(block.start, block.stop) for each, rows in into.items()}
            tasks.append(Task(block, record, targets))
        if there := sum(task.record.exists() for task in tasks):
            log.info("%s: %d of %d blocks are there from before; they are checked", name, there, len(cut))
        missing = _not_done(tasks)
        if len(missing) < len(cut):
            log.info("%s: %d of %d blocks were done before", name, len(cut) - len(missing), len(cut))
        rows = sum(len(task.block) for task in missing)
        with Progress(name, rows, "images") as progress, _Merging(tasks, missing, into, merge) as merging:

            def done(block: Block) -> None:
                progress.update(len(block))
                merging.done(block)

            if missing and cluster is not None:
                cluster.compute(name, work, missing, done)
            elif missing:
                _compute_here(name, work, missing, done, threads)
        if missing and cluster is not None:
            self._require_done(name, tasks)

    def recorded(self, name: str, cut: list[Block], part: str = "") -> Iterator[NDArray[Any]]:
        """An array of each block's record, in row order, after `map_blocks`.

        Args:
            name: of an array that goes to its place, what was kept of it, such as `x/packed`.
        """
        for block in cut:
            with safe_open(self._record(block, part), "numpy") as file:
                yield file.get_tensor(name)

    def _record(self, block: Block, part: str) -> Path:
        return self.folder / part / f"{block.start:09d}-{block.stop:09d}.safetensors"

    def _require_done(self, name: str, tasks: Sequence[Task]) -> None:
        """Compare all rows with their records, after other machines wrote some.

        Only now: two machines may write to the same page of the file.
        """
        if lost := _not_done(tasks):
            first = lost[0].block
            raise MacError(
                f"{self.folder}: {name}: {len(lost)} of {len(tasks)} blocks, rows {first.start} to "
                f"{first.stop - 1} first, are not as the workers wrote them: the file system lost writes; "
                "run the same command again, which computes these alone; if it happens again, set "
                "MAC_SCRATCH to a folder on another file system"
            )


def _not_done(tasks: Sequence[Task]) -> list[Task]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        is_done = list(pool.map(Task.is_done, tasks))
    return [task for task, done in zip(tasks, is_done, strict=True) if not done]


def _compute_here(
    name: str, work: Work, tasks: Sequence[Task], done: Callable[[Block], None], threads: int
) -> None:
    delayed_tasks = []
    with work.open() as function, Callback(posttask=lambda _key, block, *_: done(block)):
        for number, task in enumerate(tasks):
            # Dask's local schedulers begin with the last name. The names count down, so the first rows
            # are computed first, and can be merged early.
            key = f"{name}-{len(tasks) - 1 - number:09d}"
            delayed_tasks.append(delayed(task.do)(function, dask_key_name=key))
        compute(*delayed_tasks, scheduler="threads" if threads > 1 else "synchronous", num_workers=threads)


class _Merging:
    """Passes blocks to `merge` in row order, in a thread of its own.

    An error in this thread is raised in the code that computes the blocks.
    """

    def __init__(
        self, tasks: Sequence[Task], missing: Sequence[Task], into: Into, merge: Merge | None
    ) -> None:
        self._tasks, self._into, self._merge = tasks, into, merge
        self._done = {task.block: threading.Event() for task in tasks}
        for block in self._done.keys() - {task.block for task in missing}:
            self._done[block].set()
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def done(self, block: Block) -> None:
        """Note that the block is done."""
        self._done[block].set()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "_Merging":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stopped = True
            for done in self._done.values():
                done.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for task in self._tasks:
                self._done[task.block].wait()
                if self._stopped:
                    return
                kept = load_file(task.record)
                if self._merge is not None:  # first: it may create datasets, whatever the size of a block
                    self._merge(task.block, kept)
                for name, rows in self._into.items():
                    rows.add(_of(name, kept))
        except BaseException as error:
            self._error = error


@contextmanager
def memory_is_told(where: str) -> Iterator[None]:
    """Say in one line that memory ran out, and where. PyTorch raises a RuntimeError for it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = first_line(error)
        if isinstance(error, RuntimeError) and not re.search("can't allocate memory|out of memory", said):
            raise
        raise MacError(f"{where}: memory ran out ({said}); free some of it") from None


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _locked(folder: Path) -> int:
    """Make the folder if it is missing, and lock it against other processes.

    If another process has the lock, wait for it.

    Returns:
        The lock's file descriptor.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process does the same work; waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
        os.close(handle)  # the other process has finished, and removed the folder


@dataclass(frozen=True)
class Left:
    """A scratch folder: left by an unfinished run, or in use by a run.

    Attributes:
        bytes: size of its files.
        changed: time of the last change, in seconds since 1970.
        in_use: whether a process has locked it.
    """

    path: Path
    bytes: int
    changed: float
    in_use: bool


def left_in(scratch: Path) -> list[Left]:
    """All scratch folders, the one with the oldest change first."""
    if not scratch.is_dir():
        return []
    ours = re.compile(r".+-[0-9a-f]{16}")  # MAC_SCRATCH may name a folder with other things in it
    folders = [folder for folder in scratch.iterdir() if folder.is_dir() and ours.fullmatch(folder.name)]
    found = [_left(folder) for folder in folders]
    return sorted(found, key=lambda left: left.changed)


def _left(folder: Path) -> Left:
    stats = []
    for file in (folder, *folder.rglob("*")):
        with suppress(OSError):  # it may be removed at this moment
            stats.append(file.stat())
    changed = max((stat.st_mtime for stat in stats), default=0.0)
    stats = [stat for stat in stats if S_ISREG(stat.st_mode)]
    taken = sum(min(stat.st_size, 512 * stat.st_blocks) for stat in stats)  # places may be empty yet
    return Left(folder, taken, changed, _in_use(folder))


def _in_use(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # of another user, who alone can tell; or gone
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
