"""The README and docs/: their commands are run by tests, their links lead somewhere, their messages exist."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.cli import COMMANDS as MAC
from stages.cli import main
from tests.conftest import REPOSITORY
from tests.readme import COMMANDS, PAGES, TEXT, commands

# What no test can run as it is written, and why; what they stand on is tested otherwise.
NOT_RUN = {
    "make test": "is what runs the tests",
    "make bench": "takes half an hour",
    "dask scheduler --protocol tls": "needs SLURM (the same on this machine is run)",
    "sbatch": "needs SLURM",
    "DASK_SCHEDULER_ADDRESS=tls://": "needs SLURM (the variable is tested)",
    "torchrun --nproc-per-node=8": "needs eight GPUs (two processes are run)",
    "torchrun --nnodes=2": "needs two machines (two of torchrun are run on one)",
    "#SBATCH": "needs SLURM",
    "srun torchrun": "needs SLURM (two of torchrun are run on one machine)",
    "mac init folder --force --set dataset.root=data/raw/images": "test_presets.py runs its like",
    "mac download waterbirds": "needs the network (a server on this machine is used)",
    "make waterbirds": "needs Waterbirds, and half an hour",
    "make study": "takes as long as five demos (test_study.py runs a very small study)",
    "mac inspect data/study/study.json": "needs the study (test_merge.py reads one that is made up)",
    "dvc --wait-for-lock repro -s data/study": "takes as long as a demo",
    "for run in base-0": "needs the study, and DVC's queue",
    "dvc queue start -j 2": "needs the study, and DVC's queue",
    "dvc repro data/study/dvc.yaml": "takes as long as five demos (test_generate.py has DVC read the file)",
}


def run_by_tests() -> list[str]:
    """The blocks that tests take by `commands("...")`."""
    taken = []
    for file in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "commands":
                taken += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return [commands(having) for having in taken]


def test_every_command_is_run_by_a_test_or_known_not_to_be() -> None:
    taken = run_by_tests()
    left = [line for block in COMMANDS if block not in taken for line in block.splitlines() if line.strip()]
    assert [line for line in left if not line.startswith(tuple(NOT_RUN))] == []
    assert [
        start for start in NOT_RUN if not re.search(f"^{re.escape(start)}", "\n".join(COMMANDS), re.MULTILINE)
    ] == []


@pytest.mark.parametrize("block", COMMANDS)
def test_every_block_is_shell_and_its_commands_have_these_options(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"] and "<" not in line:
            subprocess.run(["make", "-n", *words[1:]], cwd=REPOSITORY, check=True, capture_output=True)
        if words[:1] == ["mac"]:
            command = main.get_command(main.make_context("mac", ["--help"], resilient_parsing=True), words[1])
            assert command is not None
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options


def test_mac_init_s_commands(tmp_path: Path) -> None:
    for block in (
        commands("dataset.options.metadata=images.csv"),
        commands("mac init --list"),
        commands("mac init own-model"),
    ):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["mac", "init"]:
                result = CliRunner().invoke(main, [*words[1:], "--params", str(tmp_path / "params.yaml")])
                assert result.exit_code == 0, result.output


def test_a_benchmark_runs_alone() -> None:
    line = next(
        line for line in commands("python -m benchmarks.retrain").splitlines() if line.startswith("python")
    )
    command = [sys.executable, *shlex.split(line, comments=True)[1:]]
    assert (
        "Usage:" in subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    )


def anchors(page: Path) -> set[str]:
    """The anchors of a page's titles, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, "SECURITY.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md"])
def test_links_and_pictures_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text()):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = (REPOSITORY / page).parent / name if name else REPOSITORY / page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_the_site_is_built_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra 'docs')")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {file.stem: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.html")}
    assert {Path(page).stem for page in PAGES if page.startswith("docs/")} <= set(pages)
    for text in pages.values():
        assert not re.findall(
            r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*", text
        )


def test_the_reference_has_parameters_and_datasets() -> None:
    for key in ("retrain.alpha", "train/combined", "has_foreground"):
        assert f"| `{key}` |" in TEXT


def said() -> str:
    """Every string of the program, with "…" in place of what is put in."""
    found = []
    for folder in ("pipeline", "stages"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"%[sd]|%\.\df", "…", node.value))
    return "\n".join(found)


def test_the_messages_of_the_troubleshooting_table_are_the_program_s() -> None:
    page = (REPOSITORY / "docs/troubleshooting.md").read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")][
        1:
    ]
    everything = said()
    ours = []
    for row in rows:
        if not re.search(r"\((DVC|PyTorch|the shell)\)", row):
            ours += re.findall(r"`([^`]+)`", row)
    assert len(ours) > 15
    for message in ours:
        pieces = re.split(r"…|\(No space left on device\)|params\.yaml: ", message)
        pieces = [piece for piece in pieces if len(piece.strip(" :.();'")) > 3]
        assert pieces
        assert all(piece.strip(" :") in everything for piece in pieces), message


def test_every_command_of_mac_is_in_the_readme() -> None:
    assert [name for name in MAC if f"mac {name}" not in TEXT] == []
