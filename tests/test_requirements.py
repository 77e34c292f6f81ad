"""setup.cfg asks for what the code imports as soon as it is loaded."""

import ast
import configparser
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement

from tests.conftest import REPOSITORY


def imported_at_once(tree: ast.AST) -> Iterator[str]:
    """The packages that a module imports outside of its functions, but for those that type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported_at_once(node)


def test_every_library_that_is_imported_at_once_is_required() -> None:
    """The wheel is tested beside all libraries that are here, so it would not notice."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    required = {Requirement(line).name for line in setup["options"]["install_requires"].split("\n") if line}
    files = [*REPOSITORY.glob("pipeline/**/*.py"), *REPOSITORY.glob("stages/**/*.py")]
    imported = set[str]()
    for file in files:
        imported.update(imported_at_once(ast.parse(file.read_text(encoding="utf-8"))))
    assert {"torch", "PIL", "sklearn", "grimp"} <= imported
    by_package = packages_distributions()
    for package in sorted(imported - sys.stdlib_module_names - {"pipeline", "stages"}):
        names = {name.lower() for name in by_package[package]}
        assert names & required, f"{package} is imported, and {names} not in install_requires"
