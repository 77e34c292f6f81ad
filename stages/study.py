"""Runs the study's runs: the command `mac study-run`, made from its entry in `pipeline.graph.STAGES`.

A run has a project of its own in the scratch folder. The stages run there one after the other, as their own
commands run them, each unless what it makes is there; so a run that was broken off goes on where it was. When
all is done, the results are in the study's folder, and the project is gone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from pipeline import graph, params_file
from pipeline.compute.code import code_of
from pipeline.compute.progress import log
from pipeline.graph import Stage
from pipeline.params.study import StudyParams
from pipeline.store import file_digest, read_json, stated_digest, write_json
from stages import frame
from stages.echo import say


def command_of(stage: Stage) -> click.Command:
    """The command `mac <stage>` of a repeated stage."""

    def command(data: Path, params_path: Path, seed: int, variant: str, **where: Any) -> None:
        say(run(stage, data, params_path, variant, seed, **where))

    decorated: Callable[..., None] = command
    for option in frame.options(stage):
        decorated = option(decorated)
    decorated = click.option("--seed", type=int, required=True, help="One of study.seeds.")(decorated)
    decorated = click.option("--variant", required=True, help="The name of one of study.variants.")(decorated)
    return click.command(stage.name, help=f"{stage.about[0].upper()}{stage.about[1:]}.")(decorated)


def run(
    stage: Stage,
    data: Path,
    params_path: Path,
    variant: str,
    seed: int,
    device: str = "cpu",
    workers: int | None = None,
    scheduler_address: str | None = None,
) -> str:
    """Do a run, or the rest of it; return the text to print.

    Raises:
        MacError: wrong parameters, no such run, or an error of a stage.
    """
    from pipeline.compute.device import hardware, pick
    from pipeline.compute.engine import Shards  # Dask takes a while to import

    params = params_file.of_run(params_path, variant, seed)
    study = params.of(StudyParams)
    whole = graph.project(data)
    elsewhere = {made.name: whole.path(made.name) / variant / str(seed) for made in stage.makes}
    before = graph.before(stage)
    images: str | None = "its own"
    if not _has_own_images(study.variants[variant]):
        elsewhere["images"] = whole.path("images")
        images = stated_digest(elsewhere["images"]) if elsewhere["images"].is_file() else "missing"
        before = [each for each in before if each.name != "prepare"]
    code = {each.name: code_of(f"pipeline.{each.run.partition(':')[0]}") for each in before}
    depends = (_without_study(params.values), _files(params.values), images, code, hardware(pick(device)))
    name = f"{stage.name}-{variant}-{seed}"
    with Shards(frame.scratch_of(data), name, f"pipeline.{stage.run.partition(':')[0]}", *depends) as kept:
        own = kept.folder / "data"
        for each in (*before, stage):
            paths = [graph.project(own, **elsewhere).path(made.name) for made in each.makes]
            if each is not stage and all(path.exists() for path in paths):
                continue
            log.info("study, %s, seed %d: %s", variant, seed, each.name)
            cluster = (workers, scheduler_address) if each.cluster else (None, None)
            said = frame.run(each, own, params, device, *cluster, elsewhere=elsewhere)
        _record(own, data / "timings" / "study" / f"{variant}-{seed}.json", [*before, stage])
    return f"{said}\n{elsewhere['run']}"


def _has_own_images(changes: Mapping[str, Any]) -> bool:
    """Whether a variant changes what stage prepare reads, so that the project's images.h5 is not its own."""
    read = set[str]()
    for model in graph.stage("prepare").models():
        read |= {f"{model.block}.{key}" for key in model.model_fields}
    return any(".".join(key.split(".")[:2]) in read for key in changes)


def _without_study(values: Mapping[str, Any]) -> dict[str, Any]:
    return {block: keys for block, keys in values.items() if block != "study"}


def _files(values: Mapping[str, Any]) -> list[str]:
    """The digests of the user's files of weights and masks, which may change though no parameter does."""
    model, external = values["model"], Path(values["saliency"]["external"])
    named = [Path(model[key]) for key in ("weights", "classifier") if model[key]]
    masks = sorted(external.rglob("*")) if values["saliency"]["method"] == "external" else []
    return [file_digest(file) for file in (*named, external, *masks) if file.is_file()]


def _record(own: Path, file: Path, stages: list[Stage]) -> None:
    """Write the times of the stages of a run into one file."""
    found = {}
    for each in stages:
        timing = own / "timings" / f"{each.name}.json"
        if timing.is_file():
            found[each.name] = read_json(timing, "remove it")
    write_json(file, found)
