"""Training in several processes, one a GPU (or, on CPUs, as many as one likes): `torchrun --nproc-per-node=N -m stages.train`.

Each process takes every N-th image of a batch, and DistributedDataParallel takes the mean of their gradients. Batch normalisation sees a
process's own images. Process 0 validates, writes and speaks.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.compute.progress import log


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass takes the mean over all processes."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Ranks()


@contextmanager
def ranks(on: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """The processes that torchrun started, and this one's device; without torchrun this process alone, on `on`."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE, on
        return
    if on.type == "cuda":
        on = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(on)
    distributed.init_process_group("nccl" if on.type == "cuda" else "gloo")
    found = Ranks(distributed.get_rank(), distributed.get_world_size())
    if not found.first:
        log.setLevel(logging.ERROR)
    try:
        yield found, on
    finally:
        distributed.destroy_process_group()
