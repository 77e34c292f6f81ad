"""Bulk work: blocks of rows through Dask, one shard file each, so that a killed stage continues where it was.

    Work ─ open() ─► function of a block ─► shard file ─► merged by the stage, in row order, while later blocks are computed

A shard is a safetensors file written under a temporary name and renamed. The scratch folder's name carries the fingerprint of everything
that its shards depend on, and each shard the digest of its contents, so a shard found there is the one that would be computed again.
Where the work runs (this process, or workers of a Dask cluster: `pipeline.compute.cluster`) makes no difference to any byte.
"""

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pipeline.compute.progress import Progress, log
from pipeline.errors import MacError, first_line
from pipeline.store import digest_of, replacing, tensor_errors

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """Rows start … stop − 1."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


def blocks(rows: int, size: int) -> list[Block]:
    """Cut `rows` rows into blocks of `size`."""
    return [Block(start, min(start + size, rows)) for start in range(0, rows, size)]


class Work(Protocol):
    """What is done to blocks of rows. It is pickled and sent to workers, so it names files and holds none open."""

    def open(self) -> AbstractContextManager[Callable[[Block], Arrays]]:
        """Open files, load the model: once a process. What comes of it is a pure function of the block."""


class Cluster(Protocol):
    """Processes elsewhere that do the work in place of this one: `pipeline.compute.cluster`."""

    def compute(self, name: str, work: Work, missing: Mapping[Block, Path], done: Callable[[Block], None]) -> None:
        """Compute the blocks and write their shards; `done` is called for each."""


Merge = Callable[[Block, Arrays], None]  # takes up a block that is done


class Shards:
    """The scratch folder of one computation, e.g. `<data>/scratch/saliency-1f0c…`: this process's alone while the context lasts.

    It is deleted when the context ends well, and kept, for the next run to go on from, when it does not.
    """

    def __init__(self, scratch: Path, name: str, *fingerprint: object) -> None:
        self.folder = scratch.resolve() / f"{name}-{digest_of(name, *fingerprint)[:16]}"
        self.name = name

    def __enter__(self) -> "Shards":
        try:
            self._lock = _locked(self.folder)
        except OSError as error:
            raise MacError(f"{self.folder}: cannot be written ({first_line(error)})") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def map_blocks(self, work: Work, cut: list[Block], merge: Merge, threads: int = 1, cluster: Cluster | None = None) -> None:
        """Compute what is not there yet, and hand every block to `merge`, one at a time and in row order.

        Args:
            merge: called in a thread of its own, for each block as soon as it and those before it are done.
            threads: blocks at a time in this process; 1 where the function itself uses all cores or the GPU.
            cluster: does the work in place of this process.

        Raises:
            MacError: a block failed for a reason that a user can mend.
        """
        paths = {block: self.folder / f"{block.start:09d}-{block.stop:09d}.safetensors" for block in cut}
        missing = {block: path for block, path in paths.items() if not _is_whole(path)}
        if len(missing) < len(cut):
            log.info("%s: %d of %d blocks were done before", self.name, len(cut) - len(missing), len(cut))
        with Progress(self.name, sum(map(len, missing)), "images") as progress, _Merging(paths, missing, merge) as merging:

            def done(block: Block) -> None:
                progress.update(len(block))
                merging.done(block)

            if missing and cluster is not None:
                cluster.compute(self.name, work, missing, done)
            elif missing:
                with work.open() as function, Callback(posttask=lambda _key, block, *_: done(block)):
                    # Dask's local schedulers take the last name first: the names count down, so that the first rows can be merged soon.
                    down = reversed(range(len(missing)))
                    name = f"{self.name}-{{:09d}}".format
                    named = zip(map(name, down), missing.items(), strict=True)
                    tasks = [delayed(write_shard)(function, *item, dask_key_name=key) for key, item in named]
                    compute(*tasks, scheduler="threads" if threads > 1 else "synchronous", num_workers=threads)


class _Merging:
    """Hands blocks on in row order, in a thread of its own; what goes wrong there is raised where the blocks are computed."""

    def __init__(self, paths: Mapping[Block, Path], missing: Collection[Block], merge: Merge) -> None:
        self._paths, self._merge = paths, merge
        self._done = {block: threading.Event() for block in paths}
        for block in paths.keys() - missing:
            self._done[block].set()
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def done(self, block: Block) -> None:
        """The block's shard is there."""
        self._done[block].set()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "_Merging":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
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
    """Compute a block and write its shard."""
    arrays = {name: np.ascontiguousarray(array) for name, array in function(block).items()}
    with replacing(path, durable=False) as temporary, tensor_errors():
        save_file(arrays, temporary, {"sha256": _digest(arrays)})
    return block


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether the shard is there, and is what was written."""
    try:
        with safe_open(path, "numpy") as file:
            written = (file.metadata() or {}).get("sha256")
        return written == _digest(load_file(path))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return False


def _locked(folder: Path) -> int:
    """Make the folder if need be and lock it against other processes, waiting for one that has it; the lock's file descriptor."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process is at the same work; waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
        os.close(handle)  # the other one was done and removed it


@dataclass(frozen=True)
class Left:
    """A scratch folder: what an unfinished run left, or what a run is at."""

    path: Path
    bytes: int
    changed: float  # seconds since the epoch
    in_use: bool


def left_in(scratch: Path) -> list[Left]:
    """All scratch folders, the oldest first."""
    found = []
    for folder in scratch.iterdir() if scratch.is_dir() else ():
        if folder.is_dir():
            stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
            changed = max([folder.stat().st_mtime, *(stat.st_mtime for stat in stats)])
            found.append(Left(folder, sum(stat.st_size for stat in stats), changed, _in_use(folder)))
    return sorted(found, key=lambda left: left.changed)


def _in_use(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
