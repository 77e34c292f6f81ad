"""Runs the stages: makes the command `mac <stage>` from the stage's entry in `pipeline.graph.STAGES`.

The command reads and checks all of params.yaml, opens the artefacts that the stage needs, picks the device,
runs the stage's function, records the time, and prints the result.
"""

import os
import platform
import re
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline import graph
from pipeline.compute import torchrun
from pipeline.compute.code import edited
from pipeline.compute.context import Context, Track, untracked
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.graph import Stage
from pipeline.machine import usable_cores
from pipeline.store.files import write_json
from stages import LOCK
from stages.echo import say
from stages.options import data_option, device_option, params_option, scheduler_option, workers_option

if TYPE_CHECKING:
    from pipeline.compute.cluster import DaskCluster
    from pipeline.params.block import Block
    from pipeline.params_file import Params
    from pipeline.project import Opened
    from stages.tracking import Tracking

show_option = click.option("--open", "show", is_flag=True, help="Show the page in the browser.")


def command_of(stage: Stage) -> click.Command:
    """The command `mac <stage>`, with the options that apply to the stage."""

    def command(data: Path, params_path: Path | None = None, show: bool = False, **where: Any) -> None:
        page = data / stage.makes[0].path
        with _joined(stage, where):
            require_current(stage.name, data.parent)
            params = _loaded(stage, params_path)
            with _tracked(stage, data, params) as tracking:
                track = untracked if tracking is None else tracking.epoch
                said = run(stage, data, params, **where, track=track)
                if tracking is not None:
                    tracking.made(stage.name, page)
        if said:
            say(said)
        if page.suffix == ".html":
            say(page)
        if show:
            _show(page.resolve())

    for option in options(stage):
        command = option(command)
    return click.command(stage.name, help=f"{stage.about[0].upper()}{stage.about[1:]}.")(command)


def _show(page: Path) -> None:
    """Open a page in the browser, or say where it is. Over ssh there is often none but in the terminal."""
    given = any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    if ("SSH_CONNECTION" in os.environ and not given) or not webbrowser.open(page.as_uri()):
        say(f"no browser here: copy {platform.node()}:{page} to where one is; it is one file")


def require_current(name: str, folder: Path) -> None:
    """Refuse other code of a stage than that of the mac.lock in a project's folder, if it has one."""
    if (folder / LOCK).exists():
        from stages import lock  # what finds the code takes a while to import

        lock.require(name, folder)


def _loaded(stage: Stage, path: Path | None) -> "Params | None":
    """The parameters, if the stage has any, or is tracked and the file is there and may name a tracker.

    What reads them is imported only then: it takes a tenth of a second.
    """
    if path is None or not (stage.params or (path.is_file() and not _plainly_untracked(path))):
        return None
    from pipeline import params_file

    return params_file.load(path)


def _plainly_untracked(path: Path) -> bool:
    """Whether a file of parameters says `tracking.to: none`, written as `mac init` writes it."""
    with suppress(OSError):
        return (
            re.search(rb"^tracking:\n(?: +#.*\n)* +to: none *(?:#.*)?$", path.read_bytes(), re.M) is not None
        )
    return False


@contextmanager
def _tracked(stage: Stage, data: Path, params: "Params | None") -> "Iterator[Tracking | None]":
    """What tells the tracker of `tracking.to` of this run; None if it is not told.

    Raises:
        MacError: its package is missing. Every stage says so, not only those that are tracked.
    """
    if params is None:
        yield None
        return
    from pipeline.params.tracking import TrackingParams
    from stages.tracking import require, tracked

    name = params.of(TrackingParams).to
    require(name)
    if not stage.tracked or torchrun.rank() != 0:  # if processes train together, the first one tells
        name = "none"
    with tracked(stage.name, name, data, params.values) as tracking:
        yield tracking


def options(stage: Stage) -> Iterator[Callable[[Callable[..., None]], Callable[..., None]]]:
    """The options of a stage's command."""
    if stage.makes[0].path.endswith(".html"):
        yield show_option
    if stage.cluster:
        yield scheduler_option
        yield workers_option
    if stage.device:
        yield device_option
    yield data_option
    if stage.params or stage.tracked:
        yield params_option


def run(
    stage: Stage,
    data: Path,
    params: "Params | None" = None,
    device: str = "cpu",
    workers: int | None = None,
    scheduler_address: str | None = None,
    elsewhere: Mapping[str, Path] | None = None,
    threads: int | None = None,
    track: Track = untracked,
) -> str | None:
    """Run a stage in a data folder; return the text to print, if any.

    Args:
        params: needed if the stage has parameters.
        elsewhere: the paths of artefacts that are not in the data folder, by name.
        threads: of the CPU, in this process; None for as many as the environment says.
        track: is told of every epoch of a training.

    Raises:
        MacError: an artefact that is missing or does not fit, or an error of the stage.
    """
    models: list[Block] = [] if params is None else [params.of(model) for model in stage.models()]
    function = stage.function()
    project = graph.project(data, **(elsewhere or {}))
    outs = [project.path(made.name) for made in stage.makes]
    divisible = all(model.divisible for model in models)
    with (
        _limited(threads),
        _cluster(stage, divisible, workers, scheduler_address, device) as cluster,
    ):
        name = _device(stage, device) if cluster is None else cluster.on.type
        context = Context(name, scratch_of(data), cluster, threads, track)
        with _recorded(data, stage.name, name.partition(":")[0]), project.open(*stage.needs) as given:
            _require_same(stage, given, models)
            said: str | None = function(given, *outs, *models, context)
            _require_unedited(stage)
    return said


@contextmanager
def _joined(stage: Stage, where: dict[str, Any]) -> Iterator[None]:
    """Join the other processes that torchrun started, if the stage trains; the device becomes this one's.

    It comes before all that may fail in one process alone: the others then know that this one is gone.
    """
    if not (stage.together and torchrun.started()):
        yield
        return
    from pipeline.compute.ranks import joined  # PyTorch takes a while to import

    with joined(where["device"]) as on:
        where["device"] = str(on)
        yield


def _require_same(stage: Stage, given: "Opened", models: "list[Block]") -> None:
    """Refuse processes of torchrun that have other code, artefacts or parameters than the first one."""
    if not (stage.together and torchrun.started()):
        return
    from pipeline.compute.ranks import here

    params = [model.model_dump(mode="json") for model in models]
    module = f"pipeline.{stage.run.partition(':')[0]}"
    here().require_same(module, **given.digests(*stage.needs), parameters=params)


def _require_unedited(stage: Stage) -> None:
    """Refuse a result if its code was edited meanwhile. DVC would note the new code as what made it.

    Raises:
        MacError: names the modules.
    """
    if changed := edited(f"pipeline.{stage.run.partition(':')[0]}"):
        target = stage.name if stage.pipeline == "main" else f"data/{stage.pipeline}/dvc.yaml:{stage.name}"
        raise MacError(
            f"{stage.name}: {', '.join(changed)} changed while it ran, so the result may be of either; "
            f"run it again (or 'dvc commit {target}', if it is the same to you)"
        )


def _device(stage: Stage, device: str) -> str:
    """PyTorch's name of the device. PyTorch is imported only for stages that use it."""
    if not stage.device:
        return "cpu"
    from pipeline.compute.device import keep_freed_memory, pick

    keep_freed_memory()
    return str(pick(device))


def _limited(threads: int | None) -> AbstractContextManager[None]:
    """This process computes with so many threads."""
    if threads is None:
        return nullcontext()
    from pipeline.compute.threads import limited  # it takes a while to import

    return limited(threads)


def _cluster(
    stage: Stage, divisible: bool, workers: int | None, address: str | None, device: str
) -> "AbstractContextManager[DaskCluster | None]":
    """The cluster that the options ask for; None if they ask for none, or if the work is not divisible."""
    if workers is None and address is None:
        return nullcontext()
    if not divisible:
        if workers is not None or not _is_of_environment("scheduler_address"):
            log.info("%s: with these parameters this process computes alone, without workers", stage.name)
        return nullcontext()
    from pipeline.compute.connection import connect  # distributed takes a while to import

    return connect(workers, address, device)


def _is_of_environment(option: str) -> bool:
    """Whether a variable of the environment, and not the command's line, sets an option."""
    called = click.get_current_context(silent=True)
    return called is not None and called.get_parameter_source(option) is ParameterSource.ENVIRONMENT


def scratch_of(data: Path) -> Path:
    """The folder for unfinished work. It is no output of DVC: DVC deletes outputs before a stage runs.

    MAC_SCRATCH can name another folder, which several experiments can share.
    """
    return Path(os.environ.get("MAC_SCRATCH") or data / "scratch")


def _threads() -> int | None:
    """How many threads PyTorch computes with in this process; None if the stage does not load it."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


@contextmanager
def _recorded(data: Path, stage: str, device: str) -> Iterator[None]:
    """Write timings/<stage>.json if the block raises no exception. Artefacts hold no times."""
    start = time.monotonic()
    yield
    if torchrun.rank() != 0:  # if processes train together, the first one writes
        return
    record = {
        "seconds": round(time.monotonic() - start, 2),
        "device": device,
        "cores": usable_cores(),
        "threads": _threads(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    try:
        write_json(data / "timings" / f"{stage}.json", record)
    except MacError as error:  # what the stage makes is there
        log.warning("%s is done, but its time is not recorded: %s", stage, error)
