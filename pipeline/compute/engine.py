"""Bulk work in blocks of rows. Dask computes each block; the result is kept in a file, its shard.

    Work ─ open() ─► function of a block ─► shard ─► merged by the stage, in row order

Blocks are merged while later ones are still computed.

A stage that was killed continues with the shards that it finds. A shard is a safetensors file; it is written
under a temporary name and then renamed. The name of the scratch folder contains the fingerprint of everything
that its shards depend on, the code too, and each shard contains the digest of its contents. So a shard that
is found equals the one that would be computed. The bytes do not depend on where the work runs: in this
process, or in the workers of `pipeline.compute.cluster`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from pipeline.store import digest_of, replacing, tensor_errors

Arrays = Mapping[str, NDArray[Any]]


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


class Cluster(Protocol):
    """Other processes that compute instead of this one; see `pipeline.compute.cluster`.

    Attributes:
        hardware: what they compute on; see `pipeline.compute.device.hardware`.
    """

    @property
    def hardware(self) -> tuple[str, ...]: ...

    def compute(
        self, name: str, work: Work, missing: Mapping[Block, Path], done: Callable[[Block], None]
    ) -> None:
        """Compute the blocks and write their shards. `done` is called after each block."""

    def keeping(
        self, name: str, work: Repeated
    ) -> AbstractContextManager[Callable[[Sequence[range], Any], list[Any]]]:
        """Workers that keep the work open: a function of parts and an argument, to what each part gives."""


Merge = Callable[[Block, Arrays], None]  # what a stage does with a computed block


class Shards:
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

    def __enter__(self) -> "Shards":
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
        self, work: Work, cut: list[Block], merge: Merge, threads: int = 1, cluster: Cluster | None = None
    ) -> None:
        """Compute the blocks that have no shard yet, and pass all blocks to `merge` in row order.

        Args:
            merge: called in a thread of its own, with one block at a time. It gets a block as soon as this
                block and all blocks before it are computed.
            threads: how many blocks this process computes at a time. It is 1 if the function itself uses all
                cores, or a GPU.
            cluster: computes instead of this process.

        Raises:
            MacError: a block failed for a reason that a user can correct.
        """
        paths = {block: self.folder / f"{block.start:09d}-{block.stop:09d}.safetensors" for block in cut}
        missing = {block: path for block, path in paths.items() if not _is_whole(path)}
        if len(missing) < len(cut):
            log.info("%s: %d of %d blocks were done before", self.name, len(cut) - len(missing), len(cut))
        rows = sum(len(block) for block in missing)
        with Progress(self.name, rows, "images") as progress, _Merging(paths, missing, merge) as merging:

            def done(block: Block) -> None:
                progress.update(len(block))
                merging.done(block)

            if missing and cluster is not None:
                cluster.compute(self.name, work, missing, done)
            elif missing:
                self._compute_here(work, missing, done, threads)

    def _compute_here(
        self, work: Work, missing: Mapping[Block, Path], done: Callable[[Block], None], threads: int
    ) -> None:
        tasks = []
        with work.open() as function, Callback(posttask=lambda _key, block, *_: done(block)):
            for number, (block, path) in enumerate(missing.items()):
                # Dask's local schedulers begin with the last name. The names count down, so the first rows
                # are computed first, and can be merged early.
                name = f"{self.name}-{len(missing) - 1 - number:09d}"
                tasks.append(delayed(write_shard)(function, block, path, dask_key_name=name))
            compute(*tasks, scheduler="threads" if threads > 1 else "synchronous", num_workers=threads)


class _Merging:
    """Passes blocks to `merge` in row order, in a thread of its own.

    An error in this thread is raised in the code that computes the blocks.
    """

    def __init__(self, paths: Mapping[Block, Path], missing: Collection[Block], merge: Merge) -> None:
        self._paths, self._merge = paths, merge
        self._done = {block: threading.Event() for block in paths}
        for block in paths.keys() - missing:
            self._done[block].set()
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def done(self, block: Block) -> None:
        """Note that the block's shard is there."""
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
            for block, path in self._paths.items():
                self._done[block].wait()
                if self._stopped:
                    return
                self._merge(block, load_file(path))
        except BaseException as error:
            self._error = error


def write_shard(function: Callable[[Block], Arrays], block: Block, path: Path) -> Block:
    """Compute a block and write its shard; returns the block.

    Raises:
        MacError: memory ran out, or the shard cannot be written.
    """
    with _memory_is_told(block):
        arrays = {name: np.ascontiguousarray(array) for name, array in function(block).items()}
    with replacing(path, durable=False) as temporary, tensor_errors():
        save_file(arrays, temporary, {"sha256": _digest(arrays)})
    return block


@contextmanager
def _memory_is_told(block: Block) -> Iterator[None]:
    """Say in one line that memory ran out. PyTorch raises a RuntimeError for it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = first_line(error)
        if isinstance(error, RuntimeError) and not re.search("can't allocate memory|out of memory", said):
            raise
        raise MacError(
            f"rows {block.start} to {block.stop - 1}: memory ran out ({said}); free some of it"
        ) from None


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether the shard is there and holds what was written."""
    try:
        with safe_open(path, "numpy") as file:
            written = (file.metadata() or {}).get("sha256")
        return written == _digest(load_file(path))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return False


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
    return Left(folder, sum(stat.st_size for stat in stats), changed, _in_use(folder))


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
