"""Bulk work: blocks of rows through Dask, one shard file each, so that a killed stage continues where it was.

A shard is a safetensors file written under a temporary name and renamed; the scratch folder's name carries the fingerprint
of everything that the shards depend on, so a shard found there is the one that would be computed again.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pipeline.progress import Progress, log
from pipeline.store import digest_of, replacing

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
    """The scratch folder of one computation, e.g. `<data>/scratch/saliency-1f0c…`."""

    def __init__(self, scratch: Path, name: str, *fingerprint: object) -> None:
        self.folder = scratch / f"{name}-{digest_of(name, *fingerprint)[:16]}"
        self.name = name

    def map_blocks(self, function: Callable[[Block], Arrays], cut: list[Block], workers: int) -> Computed:
        """Compute what is not there yet.

        Args:
            function: a pure function of the block.
            workers: blocks at a time (threads); 1 where the function itself uses all cores or the GPU.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = {block: self.folder / f"{block.start:09d}-{block.stop:09d}.safetensors" for block in cut}
        missing = [block for block in cut if not _is_whole(paths[block])]
        if len(missing) < len(cut):
            log.info("%s: %d of %d blocks were done before", self.name, len(cut) - len(missing), len(cut))
        with Progress(self.name, sum(map(len, missing)), "images") as progress:
            tasks = [delayed(_compute)(function, block, paths[block], dask_key_name=f"{self.name}-{block.start:09d}") for block in missing]
            with Callback(posttask=lambda _key, rows, *_: progress.update(rows)):
                compute(*tasks, scheduler="threads" if workers > 1 else "synchronous", num_workers=workers)
        return Computed(paths)

    def remove(self) -> None:
        """Delete the shards: their contents are in the artefact."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _compute(function: Callable[[Block], Arrays], block: Block, path: Path) -> int:
    arrays = {name: np.ascontiguousarray(array) for name, array in function(block).items()}
    with replacing(path, durable=False) as temporary:
        save_file(arrays, temporary)
    return len(block)


def _is_whole(path: Path) -> bool:
    try:
        load_file(path)
    except (OSError, SafetensorError):
        return False
    return True
