"""The code of each stage: its modules, and their digests.

`stages/` and `pipeline/graph.py` are left out: they change with every new stage, but do not change any
artefact.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import grimp

import pipeline
from pipeline.graph import STAGES, Stage, before

ROOT = Path(pipeline.__file__).parent.parent
PAINTING = "pipeline.demo.waterbirds_layout"


def modules_of(stage: Stage) -> list[str]:
    """Files of the modules that a stage uses; if it is repeated, also those of the stages that it runs."""
    found = set[str]()
    for each in runs(stage):
        found |= set(modules(f"pipeline.{each.run.partition(':')[0]}"))
    return sorted(found)


def runs(stage: Stage) -> list[Stage]:
    """A stage, and before it the ones that it runs itself if it is repeated.

    The project's images are there already: a variant with others names them in its own parameters.
    """
    earlier = before(stage) if stage.repeated else []
    return [*(each for each in earlier if each.name != "prepare"), stage]


def modules(module: str) -> list[str]:
    """Files of a module and of all that it imports, directly or not. A package used whole is its folder."""
    graph = _graph()
    names = {module} | graph.find_upstream_modules(module) | graph.find_descendants(module)
    whole = set()
    for name in names:
        parts = graph.find_descendants(name)
        if parts and parts <= names:
            whole.add(name)
    found = set()
    for name in names:
        if name.rpartition(".")[0] in whole:
            continue
        path = Path(*name.split("."))
        if name not in whole:
            path = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
        found.add(path.as_posix())
    return sorted(found)


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", exclude_type_checking_imports=True, cache_dir=None)


def digests() -> dict[str, str]:
    """The digest of the code of each stage, by its name, and of that which paints the demo."""
    return {"demo": _digest(modules(PAINTING))} | {each.name: digest(each) for each in STAGES}


def digest(stage: Stage) -> str:
    """The digest of the code of a stage: of the names and the contents of the files that it uses."""
    return _digest(modules_of(stage))


@cache
def whole() -> str:
    """The digest of all code, which is much quicker to compute than that of one stage."""
    return _digest(["pipeline"])


def _digest(paths: Iterable[str]) -> str:
    """A sha256 in short: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for path in paths:
        files = sorted((ROOT / path).rglob("*")) if (ROOT / path).is_dir() else [ROOT / path]
        for file in files:
            if file.is_file() and file.suffix != ".pyc":
                found.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
                found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]
