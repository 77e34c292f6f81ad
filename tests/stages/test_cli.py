import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.cli import COMMANDS, main
from tests.conftest import REPOSITORY
from tests.readme import commands


def test_help_lists_every_command_and_each_has_help_of_its_own() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_torchrun_is_refused_by_what_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each process would do all of it, and write the same files."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    said = {name: CliRunner().invoke(main, [name, "--help"]) for name in COMMANDS}
    assert {name for name, result in said.items() if result.exit_code == 0} == {"train", "jtt", "masktune"}
    assert said["retrain"].stderr == "Error: retrain: runs in one process; start it without torchrun\n"


@pytest.mark.parametrize(
    ("command", "set_before", "spins"),
    [("retrain", "", "0"), ("whatif", "", "0"), ("retrain", "active", "30000000000")],
)
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    command: str, set_before: str, spins: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": set_before} if set_before else {})
    arguments = [sys.executable, "-m", "stages", command, "--data", "nowhere"]  # it loads PyTorch
    done = subprocess.run(arguments, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["traain"])
    assert result.exit_code == 2
    assert "No such command 'traain'" in result.output


def loaded_by(code: str) -> str:
    """The names of all modules that a Python process has loaded after this code."""
    code = f"import sys; {code}; print(sorted(sys.modules))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stdout


def test_help_imports_nothing_heavy() -> None:
    code = "from click.testing import CliRunner; from stages.cli import main; "
    code += "CliRunner().invoke(main, ['--help'])"
    loaded = loaded_by(code)
    for module in ("torch", "torchvision", "h5py", "numpy", "dask"):
        assert f"'{module}'" not in loaded


def test_retraining_does_not_load_what_it_does_not_use() -> None:
    code = "from stages.cli import main; main.get_command(None, 'retrain'); "
    code += "import pipeline.steps.retrain"
    loaded = loaded_by(code)
    for module in ("torchvision", "dask", "matplotlib", "stages.study"):
        assert f"'{module}'" not in loaded


def test_a_stage_without_parameters_does_not_load_what_reads_them() -> None:
    code = "from click.testing import CliRunner; from stages.cli import main; "
    code += "CliRunner().invoke(main, ['evaluate', '--data', 'none'], catch_exceptions=False); "
    code += "assert 'pipeline.steps.evaluate' in sys.modules"
    loaded = loaded_by(code)
    for module in ("torch", "pipeline.params_file", "ruamel.yaml", "PIL"):
        assert f"'{module}'" not in loaded


def completed(*words: str) -> list[str]:
    """What bash is offered at the last word."""
    environment = {
        **os.environ,
        "_MAC_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("mac")], env=environment, capture_output=True, text=True, check=True
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_the_tab_key_completes_commands_options_and_values() -> None:
    assert completed("mac", "pre") == ["prepare", "predict"]
    assert completed("mac", "inspect", "--so") == ["--sort"]
    assert "confidence" in completed("mac", "inspect", "--sort", "co")


def test_the_readme_s_line_turns_completion_on() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    block = commands("_MAC_COMPLETE=bash_source") + "complete -p mac"
    done = subprocess.run(["bash", "-ec", block], env=environment, capture_output=True, text=True, check=True)
    assert "_mac_completion" in done.stdout


def test_completing_a_command_s_name_imports_nothing_heavy() -> None:
    code = "from stages.cli import main; "
    code += "context = main.make_context('mac', [], resilient_parsing=True); "
    code += "main.shell_complete(context, '')"
    loaded = loaded_by(code)
    assert "'stages.cli'" in loaded
    for module in ("torch", "torchvision", "h5py", "numpy", "dask"):
        assert f"'{module}'" not in loaded


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "no", "data/x"), "Error: data/x: Permission denied"),
        (OSError(errno.ENOSPC, "no"), "Error: No space left on device"),
        (OSError("of a library\nin two lines"), "Error: of a library"),
    ],
)
def test_an_error_of_the_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("stages.tools.clean.left_in", fail)
    result = CliRunner().invoke(main, ["clean"])
    assert (result.exit_code, result.output.strip()) == (1, line)


def test_a_signal_to_end_leaves_no_temporary_file(tmp_path: Path) -> None:
    """SLURM sends it some time before it kills."""
    code = f"""
import pathlib, sys, time
from click import command
from pipeline import store
import stages.cli
out = pathlib.Path({str(tmp_path)!r})
@command()
def slow():
    with store.create_folder(out / "folder"), store.replacing(out / "file") as file:
        file.touch()
        print(flush=True)
        time.sleep(60)
stages.cli.COMMANDS["slow"] = "wait"
sys.modules["stages.tools.slow"] = type("Module", (), {{"command": slow}})
stages.cli.main(["slow"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=-1, stderr=-1, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 2
        process.terminate()
        _, error = process.communicate()
    assert process.returncode == 143
    assert error == "Terminated; the same command continues where it was.\n"
    assert not list(tmp_path.iterdir())
