"""mac new and mac upgrade: the files of a project of one's own."""

import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from pipeline import params_file, presets
from pipeline.demo import weights
from pipeline.graph import STAGES
from stages import LOCK, lock, own_project
from stages.cli import main
from tests.conftest import REPOSITORY
from tests.readme import commands


def mac(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def without_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_project, "has_dvc", lambda: False)


def test_two_side_by_side_below_a_git_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC reads both: each stage depends on its own digest, on its data and parameters, on no source."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    for name in ("one", "two"):
        result = mac("new", name)
        assert result.exit_code == 0, result.output
        assert "dvc init --subdir" in result.output
    ignored = subprocess.run(
        ["git", "check-ignore", "one/data/raw/a.png", "one/data/weights/b.pth"], stdout=-1
    )
    assert ignored.stdout.count(b"\n") == 2
    seen = subprocess.run(["git", "ls-files", "-o", "--exclude-standard"], stdout=-1, text=True).stdout
    assert {f"two/data/weights/{weights.FILE.name}", "two/data/raw/dvc.yaml", "two/mac.lock"} < set(
        seen.split()
    )
    found = {stage.name: stage for stage in Repo(str(tmp_path / "two")).index.stages}
    repeated = {f"{each.name}@base-{seed}" for each in STAGES if each.repeated for seed in range(5)}
    assert found.keys() == {"demo", *(each.name for each in STAGES if not each.repeated), *repeated}
    for name, stage in found.items():
        deps = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        (locked,) = [dep for dep in deps if Path(dep.fs_path) == tmp_path / "two" / LOCK]
        assert locked.params == [f"stages.{name.partition('@')[0]}"]
        assert locked.read_params() == {locked.params[0]: lock.installed().stages[name.partition("@")[0]]}
        assert not [dep for dep in stage.deps if "pipeline" in str(dep.def_path)]
    assert params_file.load(Path("one/params.yaml")) == params_file.load(Path("two/params.yaml"))


def test_a_folder_that_is_in_no_git_repository(tmp_path: Path) -> None:
    (tmp_path / ".dvcignore").write_text("mine\n")
    result = mac("new", tmp_path, "--preset", "celeba")
    assert "dvc init --no-scm" in result.output
    assert f"the dataset belongs into {tmp_path / 'data/raw'}" in result.output
    assert (tmp_path / ".dvcignore").read_text() == "mine\n"
    assert "type = reflink" in (tmp_path / ".dvc/config").read_text()
    assert not (tmp_path / "data/raw/dvc.yaml").exists()


@pytest.mark.usefixtures("without_dvc")
def test_what_is_for_other_programs_is_ignored_as_it_is_here() -> None:
    ignored = (REPOSITORY / "stages/project/dvcignore").read_text()
    assert ignored == (REPOSITORY / ".dvcignore").read_text()
    by_git = (REPOSITORY / "stages/project/gitignore").read_text().splitlines()
    assert {f"/{line}" for line in ignored.splitlines() if line.startswith("data/")} <= set(by_git)


def test_data_and_a_checkpoint_are_named_in_the_parameters(tmp_path: Path) -> None:
    (tmp_path / "images: a").mkdir()
    (tmp_path / "best.pth").write_bytes(b"any")
    result = mac(
        "new", tmp_path / "p", "--data", tmp_path / "images: a", "--checkpoint", tmp_path / "best.pth"
    )
    assert "preset own-model" in result.output
    assert "DVC is not installed" in result.output
    assert " && mac prepare && mac train && mac saliency && " in result.output
    assert not (tmp_path / "p/.dvc").exists()  # dvc init would refuse it
    values = params_file.load(tmp_path / "p/params.yaml").values
    assert values["dataset"]["root"] == str(tmp_path / "images: a")
    assert values["model"]["classifier"] == "data/weights/best.pth"
    assert (tmp_path / "p/data/weights/best.pth").read_bytes() == b"any"
    (tmp_path / "q/mine").mkdir(parents=True)
    assert "preset folder" in mac("new", tmp_path / "q", "--data", tmp_path / "q/mine").output
    assert params_file.load(tmp_path / "q/params.yaml").values["dataset"]["root"] == "mine"


@pytest.mark.usefixtures("without_dvc")
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("best.pth").touch()
    words = [shlex.split(line, comments=True) for line in commands("mac new birds").splitlines()]
    presets_said = [mac(*line[1:]).output.partition(" ('")[0] for line in words if line[:2] == ["mac", "new"]]
    assert presets_said == [
        f"{name}: a project of preset {preset}"
        for name, preset in (("demo", "demo"), ("birds", "folder"), ("birds50", "own-model"))
    ]
    for line in commands("pip install --upgrade").splitlines():
        if line.startswith("mac"):
            assert mac(*shlex.split(line)[1:], "birds").exit_code == 0


@pytest.mark.usefixtures("without_dvc")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "README.md: is there already, and is kept"),
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--checkpoint", "nowhere.pth"), "nowhere.pth: no such file"),
        (("--preset", "none"), "no preset 'none'"),
        (("--set", "train.epochs=many"), "train.epochs"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "README.md").write_text("mine")
    result = mac("new", tmp_path, *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert contents(tmp_path) == {tmp_path / "README.md": b"mine"}


@pytest.mark.usefixtures("without_dvc")
def test_upgrade_of_an_older_project(tmp_path: Path) -> None:
    mac("new", tmp_path)
    made = contents(tmp_path)
    assert "the code of all stages is the same" in mac("upgrade", tmp_path).output
    assert contents(tmp_path) == made
    here = lock.installed()
    older = {"version": "0.0.9", "stages": {**here.stages, "masks": "0", "jtt": "0"}}
    (tmp_path / LOCK).write_text(here.model_copy(update=older).text())
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("  keep_epochs: ", "  keep: "))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    said = mac("upgrade", tmp_path).output
    assert f"{params}: added train.keep_epochs: [] # ours" in said
    assert f"{params}: train.keep is no parameter any more" in said
    assert f"wrote {tmp_path / 'dvc.yaml'}" in said
    assert f"from mac-robust 0.0.9 to {here.version}" in said
    assert "new code: masks, jtt; 'dvc repro' runs these again" in said
    assert {path for path, text in contents(tmp_path).items() if made[path] != text} == {params}
    (tmp_path / LOCK).unlink()
    assert "there is none" in mac("upgrade", tmp_path).stderr


@pytest.mark.usefixtures("without_dvc")
def test_a_value_that_is_wrong_now_is_said_before_mac_lock_is_written(tmp_path: Path) -> None:
    mac("new", tmp_path)
    (tmp_path / LOCK).write_text("")
    params = tmp_path / "params.yaml"
    params.write_text(presets.text("demo").replace("  epochs: 18", "  epochs: many", 1))
    assert "train.epochs" in mac("upgrade", tmp_path).stderr
    assert (tmp_path / LOCK).stat().st_size == 0
