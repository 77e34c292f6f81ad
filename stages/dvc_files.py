"""The DVC files of a project: command, dependencies, parameters and outputs of each stage.

A stage depends on the artefacts that it needs, on the parameters that it reads, and on its code. In the
repository, the code is the modules that the stage's own module imports, directly or not. In a project of its
own, which has no sources, it is their digest in mac.lock.
"""

from collections.abc import Iterable
from pathlib import Path

from pipeline.graph import KINDS, STAGES, Stage
from pipeline.params.study import OF_RUN
from stages import LOCK, code

FILES = {
    "main": "dvc.yaml",
    "comparison": "data/comparison/dvc.yaml",
    "study": "data/study/dvc.yaml",
}
RAW = "data/raw/dvc.yaml"
PLOTS = Path(__file__).parent / "project/plots.yaml"
_HEADS = {
    "main": "# From raw images to a robust classifier.\n",
    "comparison": """\
# What MaC is compared with that trains or masks again: dvc repro data/comparison/dvc.yaml
""",
    "study": """\
# The methods over many runs of ERM, and over the study's variants: dvc repro data/study/dvc.yaml
""",
}
_BY = {
    False: "# Made from pipeline/graph.py and stages/project/plots.yaml by 'make generated'.\n",
    True: "# Made by 'mac new' and 'mac upgrade'; your own stages belong into another folder's dvc.yaml.\n",
}
_OF_STUDY = """\
vars:
  - ../../params.yaml
"""


def text(pipeline: str, locked: bool) -> str:
    """The DVC file of a pipeline: `main`, `comparison` or `study`.

    Args:
        locked: whether a stage depends on mac.lock, and not on the sources.
    """
    lines = ["stages:"]
    for stage in STAGES:
        if stage.pipeline == pipeline:
            lines.extend(_repeated(stage, locked) if stage.repeated else _once(stage, locked))
    above = _HEADS[pipeline] + _BY[locked] + (_OF_STUDY if pipeline == "study" else "")
    below = PLOTS.read_text(encoding="utf-8") if pipeline == "main" else ""
    return above + "\n".join(lines) + "\n" + below


def raw(locked: bool) -> str:
    """data/raw/dvc.yaml: the painting of the demo dataset."""
    lines = [
        "stages:",
        "  demo:",
        "    desc: paint the demo dataset in the layout of Waterbirds "
        "(runs only where params.yaml asks for data/raw/demo)",
        "    cmd: mac demo demo --seed 0",
    ]
    if locked:
        lines += ["    params:", *_lock_of("demo", "../../")]
    else:
        lines += ["    deps:", *(f"      - ../../{module}" for module in code.modules(code.PAINTING))]
    return "\n".join([*lines, "    outs:", "      - demo", ""])


def _once(stage: Stage, locked: bool) -> Iterable[str]:
    yield f"  {stage.name}:"
    yield f"    desc: {stage.about}"
    yield f"    cmd: mac {stage.name}"
    if stage.pipeline != "main":
        yield "    wdir: ../.."
    yield "    deps:"
    yield from (f"      - {file}" for file in stage.files)
    yield from (f"      - data/{KINDS[name].path}" for name in stage.needs)
    yield from _sources_of(stage, locked)
    if stage.params or locked:
        yield "    params:"
    if locked:
        yield from _lock_of(stage.name)
    yield from (f"      - {key}" for key in stage.keys if stage.pipeline != "study" or key not in OF_RUN)
    outs = [made.path for made in stage.makes if made.form != "metrics"]
    metrics = [made.path for made in stage.makes if made.form == "metrics"]
    yield "    outs:"
    yield from (f"      - data/{path}" for path in outs)
    yield "    metrics:"
    for path in (*metrics, f"timings/{stage.name}.json"):
        yield f"      - data/{path}:"
        yield "          cache: false"


def _repeated(stage: Stage, locked: bool) -> Iterable[str]:
    """A repeated stage: for each seed and variant, with all that the stages that it runs depend on."""
    keys, files = dict[str, None](), dict[str, None]()
    for each in code.runs(stage):
        files |= dict.fromkeys(each.files)
        keys |= dict.fromkeys(key for key in each.keys if key not in OF_RUN)
    cell = "${item.variant}/${item.seed}"
    yield f"  {stage.name}:"
    yield "    matrix:"
    yield "      variant: ${study.variants}"
    yield "      seed: ${study.seeds}"
    yield f"    desc: {stage.about}"
    yield f"    cmd: mac {stage.name} --variant ${{item.variant}} --seed ${{item.seed}}"
    yield "    wdir: ../.."
    yield "    deps:"
    yield from (f"      - {file}" for file in files)
    yield f"      - data/{KINDS['images'].path}"
    if "erm" in stage.needs:
        yield f"      - data/{KINDS['study_erm'].path}/{cell}"
    yield from _sources_of(stage, locked)
    yield "    params:"
    if locked:
        yield from _lock_of(stage.name)
    yield "      - study.variants.${item.variant}"
    yield "      - study.threads"
    yield from (f"      - {key}" for key in keys if not key.startswith("study."))
    yield "    outs:"
    yield from (f"      - data/{made.path}/{cell}" for made in stage.makes)
    yield "    metrics:"
    yield f"      - data/timings/{stage.name}/{cell}.json:"
    yield "          cache: false"


def _sources_of(stage: Stage, locked: bool) -> Iterable[str]:
    return () if locked else (f"      - {module}" for module in code.modules_of(stage))


def _lock_of(name: str, root: str = "") -> Iterable[str]:
    yield f"      - {root}{LOCK}:"
    yield f"          - stages.{name}"
