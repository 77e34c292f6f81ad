"""The scratch folder of a training. The processes that train together share it, and process 0 holds it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

from pipeline.compute.context import Context
from pipeline.compute.device import training_on
from pipeline.compute.engine import Scratch
from pipeline.compute.progress import log
from pipeline.compute.ranks import Ranks


@contextmanager
def shared_scratch(
    context: Context, ranks: Ranks, name: str, module: str, *fingerprint: object
) -> Iterator[Path]:
    """The scratch folder of a training, as `engine.Scratch` makes it.

    The hardware of all processes, and the threads of each, are in its fingerprint. While process 0 waits for
    another run that has the folder, so do the others.

    Args:
        name, module, fingerprint: as for `Scratch`.

    Raises:
        MacError: in every process, if one of them does not see the folder of process 0.
    """
    hardware = ranks.each(training_on(context.on))
    if others := [each for each in hardware if each != hardware[0]]:
        log.warning(
            "%s: the processes compute on different hardware (%s; %s), so the bytes depend on which of them "
            "computes what",
            *(name, hardware[0], others[0]),
        )
    scratch = Scratch(context.scratch, name, module, *fingerprint, hardware)
    with scratch if ranks.first else nullcontext():
        ranks.wait_for_first()
        _require_shared(scratch.folder, ranks)
        yield scratch.folder


def _require_shared(folder: Path, ranks: Ranks) -> None:
    if ranks.count == 1:
        return
    token = folder / f".{uuid4().hex}"  # a new name: no machine remembers that it is missing
    if ranks.first:
        token.touch()
    number = ranks.each(token.name)[0]
    try:
        problem = (
            f"does not see {folder}: all machines need the same file system, and the same files of weights"
        )
        ranks.require_all((folder / number).exists(), problem)
    finally:
        if ranks.first:
            token.unlink()
