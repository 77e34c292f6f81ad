"""Runs the study's runs: `mac study-train` and `mac study-run`, made from `pipeline.graph.STAGES`.

Each has a project of its own in the scratch folder. The stages run there one after the other, as their own
commands run them, each unless what it makes is there; so a run that was broken off goes on where it was. When
all is done, the results are in the study's folder, and the project is gone.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pipeline import graph, params_file
from pipeline.compute.code import code_of
from pipeline.compute.progress import log
from pipeline.graph import Stage
from pipeline.made_with import require_made_with
from pipeline.params.block import Block
from pipeline.params.study import StudyParams
from pipeline.params_file import Params
from pipeline.project import Project
from pipeline.store import file_digest, read_json, stated_digest, write_json
from stages import frame
from stages.echo import say


def command_of(stage: Stage) -> click.Command:
    """The command `mac <stage>` of a repeated stage."""

    def command(data: Path, params_path: Path, seed: int, variant: str, **where: Any) -> None:
        frame.require_current(stage.name, data.parent)
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
    from pipeline.compute.engine import Scratch  # Dask takes a while to import

    params = params_file.of_run(params_path, variant, seed)
    study = params.of(StudyParams)
    whole, cell = graph.project(data), Path(variant) / str(seed)
    elsewhere = {made.name: whole.path(made.name) / cell for made in stage.makes}
    depends = list[object]()
    before = graph.before(stage)
    if not _has_own_images(study.variants[variant]):
        elsewhere["images"] = whole.path("images")
        depends.append(stated_digest(elsewhere["images"]) if elsewhere["images"].is_file() else "missing")
        before = [each for each in before if each.name != "prepare"]
    if "erm" in stage.needs:
        elsewhere["erm"] = whole.path("study_erm") / cell
        depends.append(_trained(graph.project(data, **elsewhere), params, f"{variant} --seed {seed}"))
    for each in (*before, stage):
        blocks = [params.of(model) for model in each.models()]
        depends.append([block.model_dump(mode="json", exclude=block.of_machine) for block in blocks])
        depends.append(code_of(f"pipeline.{each.run.partition(':')[0]}"))
    depends += [_files(params.values), hardware(pick(device))]
    name = f"{stage.name}-{variant}-{seed}"
    with Scratch(frame.scratch_of(data), name, f"pipeline.{stage.run.partition(':')[0]}", *depends) as kept:
        own = kept.folder / "data"
        for each in (*before, stage):
            paths = [graph.project(own, **elsewhere).path(made.name) for made in each.makes]
            if each is not stage and all(path.exists() for path in paths):
                continue
            log.info("study, %s, seed %d: %s", variant, seed, each.name)
            cluster = (workers, scheduler_address) if each.cluster else (None, None)
            said = frame.run(each, own, params, device, *cluster, elsewhere=elsewhere, threads=study.threads)
        _record(own, data / "timings" / stage.name / f"{cell}.json", [*before, stage])
    return "\n".join(str(each) for each in (said, elsewhere[stage.makes[0].name]) if each)


def _trained(project: Project, params: Params, run: str) -> str:
    """The digest of the ERM that study-train made for this run.

    Raises:
        MacError: it is missing, damaged, or was made with other parameters.
    """
    kind = project.kinds["erm"].by(f"study-train --variant {run}")
    with replace(project, kinds={**project.kinds, "erm": kind}).open("erm") as given:
        models: list[type[Block]] = [StudyParams, *graph.stage("study-train").models()]
        for model in models:
            stated = given.stated("erm", "input" if model.block == "dataset" else model.block)
            # `select` is noted as the epoch that it led to, the criterion as what it stands for
            wanted = params.of(model).model_dump(mode="json", exclude={"select", "criterion"})
            remedy = f"{kind.remedy} again"
            require_made_with(project.path("erm"), {model.block: stated}, {model.block: wanted}, remedy)
        return given.model("erm").provenance.digest


def _has_own_images(changes: Mapping[str, Any]) -> bool:
    """Whether a variant changes what stage prepare reads, so that the project's images.h5 is not its own."""
    read = graph.stage("prepare").keys
    return any(".".join(key.split(".")[:2]) in read for key in changes)


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
