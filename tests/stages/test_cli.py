import re
import subprocess
import sys

from click.testing import CliRunner

from stages.cli import COMMANDS, main
from tests.conftest import REPOSITORY


def test_help_lists_every_command_and_each_has_help_of_its_own() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["traain"])
    assert result.exit_code == 2
    assert "No such command 'traain'" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from click.testing import CliRunner; from stages.cli import main; "
    code += "CliRunner().invoke(main, ['--help']); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    for module in ("torch", "torchvision", "h5py", "numpy", "dask"):
        assert f"'{module}'" not in loaded


def test_retraining_does_not_load_what_it_does_not_use() -> None:
    code = "import sys; import stages.retrain; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    for module in ("torchvision", "dask", "PIL", "matplotlib"):
        assert f"'{module}'" not in loaded
