"""Writes all files that are made from the code: python -m stages.generate (`make generated`).

- dvc.yaml, and that of data/comparison and of data/study: each stage's command, dependencies, parameters
and outputs;
- data/raw/dvc.yaml: the modules that the demo's painting depends on;
- README.md: the table of the stages;
- docs/reference.md: every parameter and every dataset of the artefacts;
- params.yaml: the preset `demo`.

In dvc.yaml, a stage depends on the artefacts that it needs, on the parameters that it reads, and on the
modules that its own module imports, directly or not. `stages/` and `pipeline/graph.py` are left out: they
change with every new stage, but do not change any artefact.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import grimp

from pipeline import presets
from pipeline.datasets import READERS
from pipeline.graph import KINDS, STAGES, Stage, before
from pipeline.params.study import OF_RUN
from pipeline.params_file import blocks
from pipeline.setting import LARGE
from pipeline.store import Field

REPOSITORY = Path(__file__).parent.parent
DVC_FILES = {
    "main": "dvc.yaml",
    "comparison": "data/comparison/dvc.yaml",
    "study": "data/study/dvc.yaml",
}
_RAW = "data/raw/dvc.yaml"
_HEADS = {
    "main": """\
# From raw images to a robust classifier. The stages are made from pipeline/graph.py by 'make generated';
# metrics and plots, below them, are written by hand.
""",
    "comparison": """\
# What MaC is compared with that trains or masks again: dvc repro data/comparison/dvc.yaml
# Made from pipeline/graph.py by 'make generated'.
""",
    "study": """\
# The methods over many runs of ERM, and over the study's variants: dvc repro data/study/dvc.yaml
# Made from pipeline/graph.py by 'make generated'.
vars:
  - ../../params.yaml
""",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_STAGES_TABLE = re.compile(r"(<!-- stages -->\n).*?(<!-- end -->)", re.DOTALL)


def modules(module: str) -> list[str]:
    """Files of a module and of all that it imports, directly or not. A package used whole is its folder."""
    graph = grimp.build_graph("pipeline", "stages", exclude_type_checking_imports=True)
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
            path = path / "__init__.py" if (REPOSITORY / path).is_dir() else path.with_suffix(".py")
        found.add(path.as_posix())
    return sorted(found)


def _dvc_stage(stage: Stage) -> Iterable[str]:
    yield f"  {stage.name}:"
    yield f"    desc: {stage.about}"
    yield f"    cmd: mac {stage.name}"
    if stage.pipeline != "main":
        yield "    wdir: ../.."
    yield "    deps:"
    yield from (f"      - {file}" for file in stage.files)
    yield from (f"      - data/{KINDS[name].path}" for name in stage.needs)
    yield from (f"      - {module}" for module in modules(f"pipeline.{stage.run.partition(':')[0]}"))
    if stage.params:
        yield "    params:"
    yield from (f"      - {key}" for key in stage.keys if stage.pipeline != "study" or key not in OF_RUN)
    outs = [made.path for made in stage.makes if made.form != "metrics"]
    metrics = [made.path for made in stage.makes if made.form == "metrics"]
    yield "    outs:"
    yield from (f"      - data/{path}" for path in outs)
    yield "    metrics:"
    for path in (*metrics, f"timings/{stage.name}.json"):
        yield f"      - data/{path}:"
        yield "          cache: false"


def _dvc_matrix(stage: Stage) -> Iterable[str]:
    """A repeated stage: for each seed and variant, with all that the stages before it depend on.

    The project's images are there already. A variant with others names them in its own parameters.
    """
    stages = [*(each for each in before(stage) if each.name != "prepare"), stage]
    keys, files = dict[str, None](), dict[str, None]()
    found = set[str]()
    for each in stages:
        files |= dict.fromkeys(each.files)
        found |= set(modules(f"pipeline.{each.run.partition(':')[0]}"))
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
    yield from (f"      - {module}" for module in sorted(found))
    yield "    params:"
    yield "      - study.variants.${item.variant}"
    yield "      - study.threads"
    yield from (f"      - {key}" for key in keys if not key.startswith("study."))
    yield "    outs:"
    yield from (f"      - data/{made.path}/{cell}" for made in stage.makes)
    yield "    metrics:"
    yield f"      - data/timings/{stage.name}/{cell}.json:"
    yield "          cache: false"


def dvc_file(pipeline: str) -> str:
    """A DVC file with new text for its stages. What comes after them is kept."""
    lines = ["stages:"]
    for stage in STAGES:
        if stage.pipeline == pipeline:
            lines.extend(_dvc_matrix(stage) if stage.repeated else _dvc_stage(stage))
    file = REPOSITORY / DVC_FILES[pipeline]
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    below = re.search(r"^metrics:.*", text, re.DOTALL | re.MULTILINE)
    return _HEADS[pipeline] + "\n".join(lines) + "\n" + (below[0] if below else "")


def raw_file() -> str:
    """data/raw/dvc.yaml with a new list of the demo's modules. The rest is kept."""
    text = (REPOSITORY / _RAW).read_text(encoding="utf-8")
    files = modules("pipeline.demo.waterbirds_layout")
    deps = "".join(f"      - ../../{module}\n" for module in files)
    return re.sub(r"(?<=    deps:\n)(      - .*\n)+", deps, text)


def readme() -> str:
    """README.md with a new table of the stages. The rest is kept."""
    rows = []
    for stage in STAGES:
        if stage.pipeline == "main":
            made = ", ".join(f"`{made.path}`" for made in stage.makes)
            read = ", ".join(dict.fromkeys(f"`{model.block}`" for model in stage.models()))
            rows.append((f"`mac {stage.name}`", stage.about, made, read))
    table = _table(("command", "what it does", "writes, below `data/`", "parameters"), rows)
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return _STAGES_TABLE.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", page)


def reference() -> str:
    """docs/reference.md: every key of params.yaml, every option of a reader, every dataset of an artefact."""
    lines = [
        "# Reference",
        "",
        "Made from the code by `make generated`. `mac inspect FILE` shows the datasets of one file.",
        "",
        "## Parameters",
        "",
        "Every key of `params.yaml`. All of them must be there. Where no upper limit is given, it is "
        f"{LARGE:,.0f} (a seed may be larger).",
        "",
        _table(("key", "values", "meaning"), _keys()),
        "",
        "## Options of the readers",
        "",
        "The keys of `dataset.options`. A key with a default may be left out.",
        "",
        _table(("option", "reader", "values", "default", "meaning"), _options()),
        "",
        "## Artefacts",
        "",
    ]
    for kind in KINDS.values():
        if kind.form == "hdf5":
            schema: Mapping[str, Field] = import_module(f"pipeline.schemas.{kind.name}").SCHEMA
            lines += [f"`{kind.path}`, by `{kind.command}`:", ""]
            lines += [_table(("dataset", "dtype", "shape", "what"), _fields(schema)), ""]
    return "\n".join(lines)


def _keys() -> Iterable[tuple[str, ...]]:
    for block, whole in blocks().items():
        properties = whole.model_json_schema()["properties"]
        in_order: dict[str, None] = {}
        for stage in STAGES:
            for model in stage.models():
                if model.block == block:
                    in_order |= dict.fromkeys(model.model_fields)
        for key in in_order or properties:
            values = _values(properties[key])
            if (block, key) == ("dataset", "name"):
                values = ", ".join(f"`{name}`" for name in READERS)
            yield f"`{block}.{key}`", values, properties[key]["description"]


def _options() -> Iterable[tuple[str, ...]]:
    for reader, module in READERS.items():
        if not module.Options.model_fields:
            continue
        for key, field in module.Options.model_json_schema()["properties"].items():
            default = f"`{_yaml(field['default'])}`" if "default" in field else "must be given"
            yield f"`{key}`", f"`{reader}`", _values(field), default, field["description"]


def _fields(schema: Mapping[str, Field]) -> Iterable[tuple[str, ...]]:
    for name, field in schema.items():
        shape = ", ".join(str(dim) for dim in field.dims)
        about = field.about + (" (optional)" if field.optional else "")
        yield f"`{name}`", " or ".join(field.dtypes), f"({shape})", about


def _values(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        values = [_values(each) for each in field["anyOf"]]
        return " or ".join(sorted(values, key="null".__ne__))  # null first: it is no item of a list
    if "$ref" in field:  # a dataclass
        return "mapping"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return "[" + ", ".join(_values(each) for each in field["prefixItems"]) + "]"
    if field["type"] == "array":
        items = _values(field["items"])
        article = "an" if items.startswith("integer") else "a"
        return f"list of {items}" if "enum" in field["items"] else f"list, each {article} {items}"
    told = {sign: field[key] for key, sign in _BOUNDS.items() if key in field and abs(field[key]) < LARGE}
    bounds = ", ".join(f"{sign} {bound:g}" for sign, bound in told.items())
    named = {"object": "mapping", "boolean": "true, false"}.get(field["type"], field["type"])
    return f"{named} {bounds}".strip()


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(str(each) for each in value)}]"
    return "null" if value is None else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = []
    for cells in (head, tuple("---" for _ in head), *rows):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


# The generated files, and the functions that make their text.
FILES: dict[str, Callable[[], str]] = {
    DVC_FILES["main"]: lambda: dvc_file("main"),
    DVC_FILES["comparison"]: lambda: dvc_file("comparison"),
    DVC_FILES["study"]: lambda: dvc_file("study"),
    _RAW: raw_file,
    "README.md": readme,
    "docs/reference.md": reference,
    "params.yaml": lambda: presets.text("demo"),
}

if __name__ == "__main__":
    for name, made in FILES.items():
        (REPOSITORY / name).write_text(made(), encoding="utf-8")
