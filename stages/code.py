"""The code of each stage: its modules, and their digests.

`stages/` and `pipeline/graph.py` are left out: they change with every new stage, but do not change any
artefact.

`pipeline/compute/code.py` asks another question: what a process computes with, module by module, also the
packages around them and other libraries, from the sources that it has loaded. Here it is which paths DVC is
to watch: a package that is used whole is one folder, with the files in it that are no modules, as the demo's
weights are, and there are no libraries.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import grimp

import pipeline
from pipeline.graph import STAGES, Stage, before, stage

ROOT = Path(pipeline.__file__).parent.parent
PAINTING = "pipeline.demo.waterbirds_layout"
# What the package consists of (package_data in setup.cfg). Python and editors leave other files beside them.
SUFFIXES = frozenset({".py", ".css", ".html", ".js", ".safetensors", ".yaml"})


def modules_of(used_by: Stage) -> list[str]:
    """Files of the modules that a stage uses; if it is repeated, also those of the stages that it runs."""
    found = set[str]()
    for each in runs(used_by):
        found |= set(modules(f"pipeline.{each.run.partition(':')[0]}"))
    return sorted(found)


def runs(last: Stage) -> list[Stage]:
    """A stage, and before it the ones that it runs itself if it is repeated.

    The project's images are there already: a variant with others names them in its own parameters.
    """
    earlier = before(last) if last.repeated else []
    return [*(each for each in earlier if each.name != "prepare"), last]


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
    return {"demo": digest("demo")} | {each.name: digest(each.name) for each in STAGES}


def digest(name: str) -> str:
    """The digest of the code of a stage, or of `demo`: of the names and the contents of the files it uses."""
    return _digest(modules(PAINTING) if name == "demo" else modules_of(stage(name)))


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
            name = file.relative_to(ROOT)
            hidden = any(part.startswith(".") for part in name.parts)
            if file.suffix in SUFFIXES and file.is_file() and not hidden:
                found.update(name.as_posix().encode() + b"\0")
                found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:16]
