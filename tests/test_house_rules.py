"""What no line of the product may do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FILES = [
    file
    for folder in ("pipeline", "stages", "benchmarks")
    for file in sorted((REPOSITORY / folder).rglob("*.py"))
]
# CIFAR-10 is published as pickles; these are read by an unpickler that rebuilds arrays alone.
MAY_UNPICKLE = {"pipeline/datasets/dominoes.py"}


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call: ast.Call, name: str) -> object:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_pickle_is_read_from_a_file_and_no_shell_is_called(file: Path) -> None:
    name = str(file.relative_to(REPOSITORY))
    for imported in ast.walk(ast.parse(file.read_text())):
        if isinstance(imported, (ast.Import, ast.ImportFrom)) and name not in MAY_UNPICKLE:
            modules = (
                [alias.name for alias in imported.names]
                if isinstance(imported, ast.Import)
                else [imported.module]
            )
            assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(modules), name
    for function, call in calls(file):
        if function == "torch.load":
            assert given(call, "weights_only") == "True", f"{name}:{call.lineno}"
        if function in ("np.load", "numpy.load"):
            assert given(call, "allow_pickle") in (None, "False"), f"{name}:{call.lineno}"
        assert function not in ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput"), (
            f"{name}:{call.lineno}"
        )
        assert given(call, "shell") in (None, "False"), f"{name}:{call.lineno}"
        assert function not in ("yaml.load", "yaml.unsafe_load") or "YAML" in file.read_text(), (
            f"{name}:{call.lineno}"
        )


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_a_comprehension_has_one_loop_and_none_in_it(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, COMPREHENSIONS):
            inner = [other for child in ast.iter_child_nodes(node) for other in ast.walk(child)]
            assert len(node.generators) == 1, f"{file}:{node.lineno}"
            assert not any(isinstance(other, COMPREHENSIONS) for other in inner), f"{file}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_a_library_error_names_no_flag_of_a_command(file: Path) -> None:
    """Flags are the commands' own; a whole command, such as 'mac clean --remove', may be a remedy."""
    if file.relative_to(REPOSITORY).parts[0] != "pipeline":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            text = re.sub(r"'(mac|pip|dvc) [^']*'", "", ast.unparse(node.exc))
            assert not re.search(r"(^|[ \"'])--[a-z]", text), f"{file}:{node.lineno}: {text}"
