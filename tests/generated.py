"""What is made from the code: the README's reference, and the modules that each stage of the DVC files depends on.

`make generated` writes them; tests hold the files to them.
"""

import re
from pathlib import Path
from typing import Any

import grimp
from ruamel.yaml import YAML

from pipeline.params import OPTIONS, Params
from pipeline.store import MADE_BY, SCHEMAS, Field
from tests.conftest import REPOSITORY

DVC_FILES = ("dvc.yaml", "data/comparison/dvc.yaml", "data/raw/dvc.yaml")
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_MARKED = re.compile(r"(<!-- reference: [a-z]+ -->\n).*?(<!-- end -->)", re.DOTALL)


def params_table() -> str:
    """Every key of params.yaml: what values it takes and what it means; then the readers' options, which have defaults."""
    schema = Params.model_json_schema()
    rows = []
    for block, part in schema["properties"].items():
        for name, field in _definition(schema, part)["properties"].items():
            rows.append((f"`{block}.{name}`", _values(field), field["description"]))
    tables = [_table(("key", "values", "meaning"), rows)]
    options = []
    for reader, model in OPTIONS.items():
        for name, field in model.model_json_schema()["properties"].items() if model.model_fields else ():
            default = f"`{_yaml(field['default'])}`" if "default" in field else "must be given"
            options.append((f"`{name}`", f"`{reader}`", _values(field), default, field["description"]))
    return "\n\n".join([*tables, "`dataset.options`, by reader:", _table(("option", "of", "values", "default", "meaning"), options)])


def artefacts_table() -> str:
    """Every dataset of every HDF5 artefact."""
    return "\n\n".join(
        f"`{kind}.h5`, by `mac {MADE_BY[kind]}`:\n\n" + _table(("dataset", "dtype", "shape", "what"), map(_field, fields.items()))
        for kind, fields in SCHEMAS.items()
    )


def readme(page: str) -> str:
    """README.md with what stands between its marks made anew."""
    tables = {"params": params_table, "artefacts": artefacts_table}
    return _MARKED.sub(lambda found: f"{found[1]}\n{tables[found[1].split()[2]]()}\n\n{found[2]}", page)


def _field(item: tuple[str, Field]) -> tuple[str, ...]:
    name, field = item
    return f"`{name}`", field.dtype, f"({', '.join(map(str, field.dims))})", field.about + (" (optional)" if field.optional else "")


def _definition(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return found


def _values(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_values(each) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return "[" + ", ".join(_values(each) for each in field["prefixItems"]) + "]"
    if field["type"] == "array":
        return f"list, each a {_values(field['items'])}"
    bounds = [f"{sign} {field[key]:g}" for key, sign in _BOUNDS.items() if key in field]
    return " ".join([{"object": "mapping", "boolean": "true, false"}.get(field["type"], field["type"]), ", ".join(bounds)]).strip()


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def stages(file: str) -> dict[str, Any]:
    """The stages of one of DVC_FILES."""
    return YAML(typ="safe").load(REPOSITORY / file)["stages"]  # type: ignore[no-any-return]


def modules(stage: str) -> set[str]:
    """Files of the stage's module and of everything that it imports, directly or not; a package used as a whole is its folder."""
    stage = {"comparison_report": "report"}.get(stage, stage)
    graph = grimp.build_graph("pipeline", "stages")
    names = {f"stages.{stage}"} | graph.find_upstream_modules(f"stages.{stage}")
    whole = {name for name in names if (parts := graph.find_descendants(name)) and parts <= names}
    paths = [Path(*name.split(".")) for name in names - whole if name.rpartition(".")[0] not in whole]
    files = {path / "__init__.py" if (REPOSITORY / path).is_dir() else path.with_suffix(".py") for path in paths}
    return {str(path) for path in files | {Path(*name.split(".")) for name in whole}}


def dvc_file(file: str) -> str:
    """One of DVC_FILES with each stage's dependencies on modules made anew, the rest of it as it is."""
    up = "../../" if file == "data/raw/dvc.yaml" else ""  # of the others the working directory is the repository
    lines: list[str] = []
    for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"  ([a-z_]+):", line):
            missing = [f"      - {up}{module}" for module in sorted(modules(found[1]))]
        if re.match(rf"      - {re.escape(up)}(pipeline|stages)/", line):
            lines, missing = lines + missing, []
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = REPOSITORY / "README.md"
    page.write_text(readme(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in DVC_FILES:
        (REPOSITORY / name).write_text(dvc_file(name), encoding="utf-8")
