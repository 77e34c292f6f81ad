"""Bulk work: blocks of rows through Dask, one shard file each, so that a killed stage continues where it was.

    Work ─ open() ─► function of a block ─► shard file ─► merged by the stage, in row order

A shard is a safetensors file written under a temporary name and renamed. The scratch folder's name carries the fingerprint of everything
that its shards depend on, and each shard the digest of its contents, so a shard found there is the one that would be computed again.
Where the work runs (this process, or workers of a Dask cluster: `pipeline.cluster`) makes no difference to any byte.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
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

from pipeline.errors import MacError, first_line
from pipeline.progress import Progress, log
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
    """Processes elsewhere that do the work in place of this one: `pipeline.cluster`."""

    def compute(self, name: str, work: Work, missing: Mapping[Block, Path], progress: Progress) -> None:
        """Compute the blocks and write their shards."""


@dataclass(frozen=True)
class Computed:
    """Blocks that are done, in row order; what is iterated over is read anew, one block in memory at a time."""

    paths: Mapping[Block, Path]

    def __iter__(self) -> Iterator[tuple[Block, Arrays]]:
        return ((block, load_file(path)) for block, path in self.paths.items())

    def each(self, name: str) -> Iterator[NDArray[Any]]:
        """One array of every block; the others are not read."""
        for path in self.paths.values():
            with safe_open(path, "numpy") as file:
                yield file.get_tensor(name)


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

    def map_blocks(self, work: Work, cut: list[Block], threads: int = 1, cluster: Cluster | None = None) -> Computed:
        """Compute what is not there yet.

        Args:
            threads: blocks at a time in this process; 1 where the function itself uses all cores or the GPU.
            cluster: does the work in place of this process.

        Raises:
            MacError: a block failed for a reason that a user can mend.
        """
        paths = {block: self.folder / f"{block.start:09d}-{block.stop:09d}.safetensors" for block in cut}
        missing = {block: path for block, path in paths.items() if not _is_whole(path)}
        if len(missing) < len(cut):
            log.info("%s: %d of %d blocks were done before", self.name, len(cut) - len(missing), len(cut))
        with Progress(self.name, sum(map(len, missing)), "images") as progress:
            if missing and cluster is not None:
                cluster.compute(self.name, work, missing, progress)
            elif missing:
                with work.open() as function, Callback(posttask=lambda _key, rows, *_: progress.update(rows)):
                    name = f"{self.name}-{{:09d}}".format
                    tasks = [delayed(write_shard)(function, *item, dask_key_name=name(item[0].start)) for item in missing.items()]
                    compute(*tasks, scheduler="threads" if threads > 1 else "synchronous", num_workers=threads)
        return Computed(paths)


def write_shard(function: Callable[[Block], Arrays], block: Block, path: Path) -> int:
    """Compute a block and write its shard; the number of its rows."""
    arrays = {name: np.ascontiguousarray(array) for name, array in function(block).items()}
    with replacing(path, durable=False) as temporary, tensor_errors():
        save_file(arrays, temporary, {"sha256": _digest(arrays)})
    return len(block)


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
