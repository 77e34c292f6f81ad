"""Training in several processes: one for each GPU, or any number on CPUs, on one machine or on several.

    torchrun --nproc-per-node=N -m stages train

Each of N processes takes every N-th image of every batch. DistributedDataParallel averages the gradients over
the processes. Batch normalisation uses only the images of its own process. All have the same model after
every epoch, and each measures every N-th batch of the other images. Process 0 alone writes files and logs.
"""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.compute import torchrun
from pipeline.compute.code import code_of, difference
from pipeline.compute.device import pick
from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line

T = TypeVar("T")
MEETING = timedelta(minutes=10)  # so long a process waits for the others to start, or to finish a step
WAITING = timedelta(days=7)  # and so long while process 0 waits for another run, or writes


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, seen from one of them.

    Attributes:
        rank: the number of this process, from 0.
        count: how many processes there are.
        patient: the connection on which they wait for what process 0 does alone; without one, PyTorch's own.
        fast: the connection that tensors take; without one, PyTorch's own.

    All else takes PyTorch's own connection, on which a process that is lost is noticed after MEETING.
    """

    rank: int = 0
    count: int = 1
    patient: distributed.ProcessGroup | None = None
    fast: distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The same model, but its backward pass averages the gradients over all processes."""
        return DistributedDataParallel(model, process_group=self.fast) if self.count > 1 else model

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes. The tensor itself is changed."""
        if self.count > 1:
            distributed.all_reduce(values, group=self.fast)
        return values

    def level(self, model: nn.Module) -> None:
        """Give all processes the model of process 0. Each has normalised by its own images until now."""
        if self.count > 1:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0, group=self.fast)

    def each(self, value: T) -> list[T]:
        """The `value` of every process, in their order. It is pickled."""
        if self.count == 1:
            return [value]
        found: list[T] = [value] * self.count
        distributed.all_gather_object(found, value)
        return found

    def to_first(self, value: T) -> list[T] | None:
        """The `value` of every process, in their order, for process 0; None for the others. It is pickled."""
        if self.count == 1:
            return [value]
        found: list[T] | None = [value] * self.count if self.first else None
        distributed.gather_object(value, found)
        return found

    def require_same(self, module: str, **things: object) -> None:
        """Refuse to train together with processes whose code or files are others.

        Args:
            module: the name of the module whose code computes.
            things: what has to be the same, by the name that a message gives it.

        Raises:
            MacError: in every process; names the first one that differs from process 0.
        """
        found = self.each((code_of(module), things))
        for who, (code, theirs) in zip(self._names(), found, strict=True):
            if differs := difference(found[0][0], code):
                raise MacError(f"{who} has other code than process 0 ({differs}); start all of them anew")
            if others := [name for name, thing in found[0][1].items() if theirs[name] != thing]:
                raise MacError(
                    f"{who} has other {' and '.join(others)} than process 0; all machines need the same files"
                )

    def require_all(self, true: bool, problem: str) -> None:
        """Refuse to go on together if something is not true in a process.

        Args:
            problem: what this process cannot do, in words that follow its name; process 0's is told.

        Raises:
            MacError: in every process; names the first one.
        """
        answers = self.each((true, problem))
        for who, (answer, _) in zip(self._names(), answers, strict=True):
            if not answer:
                raise MacError(f"{who} {answers[0][1]}")

    def _names(self) -> list[str]:
        hosts = self.each(socket.gethostname())
        return [f"process {number} on {host}" for number, host in enumerate(hosts)]

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            distributed.barrier()

    def wait_for_first(self) -> None:
        """Wait like `wait`, however long process 0 takes for what it does alone."""
        if self.count > 1:
            distributed.barrier(group=self.patient)


ALONE = Ranks()
_here = ALONE


def here() -> Ranks:
    """The processes that this one has joined; without any, it is alone."""
    return _here


@contextmanager
def joined(name: str) -> Iterator[torch.device]:
    """Join the other processes that torchrun started; yield the device of this one.

    At the end all wait for one another, so that none ends, and with it a machine's torchrun, while process 0
    writes.

    Args:
        name: the device, as for `device.pick`. On machines with GPUs, each process takes the one that has its
            own number there.

    Raises:
        MacError: a device that is not there; processes on CPUs and others on GPUs; another process has ended;
            torchrun started this one for the second time.
    """
    global _here
    if torchrun.restarted():  # its store still has the addresses of those that ended
        raise MacError("torchrun started its processes again, which do not find one another; start it anew")
    level = log.level
    try:
        distributed.init_process_group("gloo", timeout=MEETING)
        patient = distributed.new_group(backend="gloo", timeout=WAITING)
        found = Ranks(distributed.get_rank(), distributed.get_world_size(), patient)
        if not found.first:
            log.setLevel(logging.ERROR)
        host = socket.gethostname()
        if found.count > 1:
            log.info("%d processes train together; the first one, on %s, writes", found.count, host)
        on = _own_device(name)
        same = on.type == found.each(on.type)[0]
        found.require_all(same, "computes on another kind of device than process 0; choose cpu")
        if on.type == "cuda":
            torch.cuda.set_device(on)
            fast = distributed.new_group(backend="nccl", timeout=MEETING)
            found = Ranks(found.rank, found.count, patient, fast)
        _here = found
        yield on
        found.wait_for_first()
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise MacError(
            f"the connection to the other processes is lost ({_reason(error)}); one of them may say why; "
            "start all of them anew, and they continue after their last whole epoch"
        ) from None
    finally:
        _here = ALONE
        log.setLevel(level)
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _own_device(name: str) -> torch.device:
    on = pick(name)
    if on.type != "cuda" or (on.index is not None and torchrun.count() == 1):
        return on
    if on.index is not None:
        raise MacError(f"device {name}: each process takes a GPU of its own; choose cuda")
    return pick(f"cuda:{torchrun.local_rank()}")


def _reason(error: RuntimeError) -> str:
    """What PyTorch says, without the place in its own sources."""
    return re.sub(r"^\[[^]]*:[0-9]+\] ", "", first_line(error))


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether processes cannot reach one another. PyTorch raises plain RuntimeErrors for Gloo."""
    said = re.search(r"gloo|\bconnection\b|\bsocket\b|TCPStore", str(error), re.IGNORECASE)
    return isinstance(error, distributed.DistError) or bool(said)
