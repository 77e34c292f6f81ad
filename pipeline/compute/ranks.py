"""Training in several processes: one for each GPU, or any number on CPUs.

    torchrun --nproc-per-node=N -m stages train

Each of N processes takes every N-th image of every batch. DistributedDataParallel averages the gradients over
the processes. Batch normalisation uses only the images of its own process. Process 0 validates, writes files
and logs.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.compute.code import code_of, difference
from pipeline.compute.progress import log
from pipeline.errors import MacError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, seen from one of them.

    Attributes:
        rank: the number of this process, from 0.
        count: how many processes there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The same model, but its backward pass averages the gradients over all processes."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes. The tensor itself is changed."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def each(self, value: T) -> list[T]:
        """The `value` of every process, in their order. It is pickled."""
        if self.count == 1:
            return [value]
        found: list[T] = [value] * self.count
        distributed.all_gather_object(found, value)
        return found

    def require_same_code(self, module: str) -> None:
        """Refuse to train together with processes whose code of this module is another.

        Raises:
            MacError: in every process; names the first one that differs from process 0.
        """
        codes = self.each(code_of(module))
        for number, code in enumerate(codes):
            if differs := difference(codes[0], code):
                raise MacError(
                    f"process {number} has other code than process 0 ({differs}); start all of them anew"
                )

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            distributed.barrier()


ALONE = Ranks()


@contextmanager
def ranks(on: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """The processes that torchrun started, and the device of this one.

    Without torchrun there is only this process, and its device is `on`.
    """
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
