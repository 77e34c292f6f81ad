"""What the commands import, and what they say of themselves."""

import inspect
import subprocess
import sys

import pytest
from click.testing import CliRunner

from stages.cli import AFTER, BEFORE, main
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", [*BEFORE, *AFTER])
def test_each_has_help_and_says_what_its_options_are_for(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert inspect.cleandoc(command.help or "")
    for option in command.params:
        if option.param_type_name == "option":
            assert option.help, option.name  # type: ignore[attr-defined]


def test_inspecting_results_loads_no_torch() -> None:
    code = "import sys; import stages.tools.inspect; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    for module in ("torch", "torchvision", "dask", "matplotlib"):
        assert f"'{module}'" not in done.stdout
