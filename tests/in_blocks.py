"""An artefact of 40 rows that is computed in blocks: at places, scattered over draws, and compressed.

`python -m tests.in_blocks FOLDER` makes it in children that are killed at random moments, then to the end.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline import store
from pipeline.compute.engine import Arrays, Block, Cluster, Into, Scratch, blocks
from pipeline.store import Field

ROWS, COLUMNS, DRAWS, KILLS = 40, 500, 3, 12
SCHEMA = {
    "square": Field("int64", ("row", "column"), "squares"),
    "drawn": Field("float32", ("draw", "row"), "row times draw, in the draw's order"),
    "mask": Field("bool", ("row", "column"), "whether the square is a multiple of 3", "gzip"),
}
ORDER = np.stack([np.random.default_rng(draw).permutation(ROWS) for draw in range(DRAWS)])
SQUARE = np.arange(ROWS)[:, None] ** 2 * np.arange(COLUMNS)
DRAWN = np.outer(1 + np.arange(DRAWS), np.arange(ROWS)).astype(np.float32)


@dataclass
class Squares:
    """Work that keeps count of its blocks, and fails at one.

    Attributes:
        seconds: how long a block takes.
    """

    fail_at: int = -1
    seconds: float = 0
    computed: list[int] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        yield self.block

    def block(self, block: Block) -> Arrays:
        if block.start == self.fail_at:
            raise RuntimeError("killed")
        self.computed.append(block.start)
        time.sleep(self.seconds)
        square = SQUARE[block.slice]
        return {"square": square, "drawn": DRAWN[:, block.slice], "mask": square % 3 == 0}


def make(
    folder: Path, work: Squares, size: int = 8, threads: int = 1, cluster: Cluster | None = None
) -> bytes:
    """The artefact, made in blocks of `size` rows; `a.h5` in the folder."""
    folder.mkdir(exist_ok=True)
    out, scratch = folder / "a.h5", Scratch(folder / "scratch", "squares", __name__)
    with scratch, store.create(out, "squares", SCHEMA, {}, {}, scratch=scratch.folder) as artefact:
        into: Into = {
            "square": artefact.place("square", SQUARE.shape),
            "drawn": artefact.place("drawn", DRAWN.shape, axis=1, order=ORDER),
            "mask": artefact.chunks("mask", SQUARE.shape),
        }
        cut = blocks(ROWS, size)
        scratch.map_blocks(work, cut, into=into, part="part", threads=threads, cluster=cluster)
    return out.read_bytes()


def main(folder: Path) -> None:
    """Print how many children were killed."""
    rng, killed = random.Random(0), 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            make(folder, Squares(seconds=0.005), 2)
            os._exit(0)
        time.sleep(rng.uniform(0.005, 0.15))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    make(folder, Squares(), 2)
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
