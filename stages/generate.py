"""Writes all files that are made from the code: python -m stages.generate (`make generated`).

- dvc.yaml, and that of data/comparison, of data/study and of data/raw (`stages.dvc_files`);
- .dvc/plots/sweep.json: the template of a plot, which `mac new` writes too;
- .dvcignore, and .gitignore in data/, data/comparison and data/study, which `mac new` writes too;
- docs/how-it-works.md: the table of the stages;
- docs/reference.md: every parameter and every dataset of the artefacts;
- params.yaml: the preset `demo`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline import presets
from pipeline.datasets import READERS
from pipeline.graph import KINDS, STAGES
from pipeline.params_file import blocks
from pipeline.setting import LARGE
from pipeline.store import Field
from stages import dvc_files, ignore_files

REPOSITORY = Path(__file__).parent.parent
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_STAGES_TABLE = re.compile(r"(<!-- stages -->\n).*?(<!-- end -->)", re.DOTALL)


def how_it_works() -> str:
    """docs/how-it-works.md with a new table of the stages. The rest is kept."""
    rows = []
    for stage in STAGES:
        if stage.pipeline == "main":
            made = ", ".join(f"`{made.path}`" for made in stage.makes)
            read = ", ".join(dict.fromkeys(f"`{model.block}`" for model in stage.models()))
            rows.append((f"`mac {stage.name}`", stage.about, made, read))
    table = _table(("command", "what it does", "writes, below `data/`", "parameters"), rows)
    page = (REPOSITORY / "docs/how-it-works.md").read_text(encoding="utf-8")
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
    **{file: partial(dvc_files.text, pipeline, locked=False) for pipeline, file in dvc_files.FILES.items()},
    dvc_files.RAW: partial(dvc_files.raw, locked=False),
    ".dvc/plots/sweep.json": partial((REPOSITORY / "stages/project/sweep.json").read_text, encoding="utf-8"),
    **{file: partial(ignore_files.texts().__getitem__, file) for file in ignore_files.texts()},
    "docs/how-it-works.md": how_it_works,
    "docs/reference.md": reference,
    "params.yaml": lambda: presets.text("demo"),
}

if __name__ == "__main__":
    for name, made in FILES.items():
        (REPOSITORY / name).parent.mkdir(parents=True, exist_ok=True)
        (REPOSITORY / name).write_text(made(), encoding="utf-8")
