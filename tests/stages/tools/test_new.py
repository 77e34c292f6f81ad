"""mac new and mac upgrade: the files of a project of one's own."""

import errno
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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
    assert (tmp_path / ".dvcignore").read_text().startswith("mine\n__pycache__/\n")
    assert "data/mlflow/" in (tmp_path / ".dvcignore").read_text().splitlines()
    assert "type = reflink" in (tmp_path / ".dvc/config").read_text()
    assert not (tmp_path / "data/raw/dvc.yaml").exists()


@pytest.mark.usefixtures("without_dvc")
def test_git_sees_of_a_project_what_it_sees_of_the_repository(tmp_path: Path) -> None:
    """Of every artefact, of what trackers write, and of what is the user's; DVC has hidden nothing yet."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    mac("new", tmp_path)
    written = {kind.path: kind.form != "metrics" for stage in STAGES for kind in stage.makes}
    written |= dict.fromkeys(["prepare_errors.csv", "prepare_duplicates.csv", "scratch/a", ".a.tmp"], True)
    written |= dict.fromkeys(["tensorboard/train/a", "mlflow/mlflow.db", "fiftyone/mongo"], True)
    written |= dict.fromkeys(["raw/a.png", "weights/b.pth", "external_masks/a.png"], True)
    written |= {"study/study.json": False, "timings/train.json": False, "dvclive/train/dvc.yaml": False}
    written |= {f"weights/{weights.FILE.name}": False, "raw/dvc.yaml": False, "raw/dvc.lock": False}
    asked = "\n".join(f"data/{path}" for path in written)
    for folder in (tmp_path, REPOSITORY):
        command = ["git", "-C", folder, "check-ignore", "--no-index", "--stdin"]
        said = subprocess.run(command, input=asked, stdout=-1, text=True).stdout.split()
        assert said == [f"data/{path}" for path, is_hidden in written.items() if is_hidden], folder
    assert (tmp_path / "data/weights/.gitignore").is_file()  # a dependency of stages; git keeps no folder


@pytest.mark.parametrize("fails", ["params.yaml", "data/weights"])
def test_a_disk_that_is_full_leaves_no_half_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*arguments: object) -> None:
        if fails in str(arguments):
            raise OSError(errno.ENOSPC, "No space left on device")
        written(*arguments)

    written: Callable[..., None] = own_project.write_text
    monkeypatch.setattr(own_project, "write_text", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "mine/data").mkdir(parents=True)
    for folder in ("mine", "a/b"):
        assert "cannot be written (No space left on device)" in mac("new", tmp_path / folder).stderr
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine", tmp_path / "mine/data"]


@pytest.mark.usefixtures("without_dvc")
def test_data_and_a_checkpoint_are_named_in_the_parameters(tmp_path: Path) -> None:
    (tmp_path / "images: a").mkdir()
    torch.save({"weight": torch.ones(1)}, tmp_path / "best.pth")
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
    assert (tmp_path / "p/data/weights/best.pth").read_bytes() == (tmp_path / "best.pth").read_bytes()
    (tmp_path / "q/mine").mkdir(parents=True)
    assert "preset folder" in mac("new", tmp_path / "q", "--data", tmp_path / "q/mine").output
    assert params_file.load(tmp_path / "q/params.yaml").values["dataset"]["root"] == "mine"


@pytest.mark.usefixtures("without_dvc")
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    torch.save({"weight": torch.ones(1)}, "best.pth")
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
        ((), "params.yaml: is there already, and is kept"),
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--checkpoint", "nowhere.pth"), "nowhere.pth: no such file"),
        (("--checkpoint", __file__), "test_new.py: is neither a safetensors file nor one of torch.save"),
        (("--preset", "none"), "no preset 'none'"),
        (("--set", "train.epochs=many"), "train.epochs"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "params.yaml").write_text("mine")
    result = mac("new", tmp_path, *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert contents(tmp_path) == {tmp_path / "params.yaml": b"mine"}


@pytest.mark.usefixtures("without_dvc")
def test_two_files_of_weights_of_one_name_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / weights.FILE.name)
    result = mac("new", tmp_path / "p", "--preset", "demo", "--checkpoint", tmp_path / weights.FILE.name)
    assert "the weights of preset demo have this name too; rename the file" in result.stderr
    assert not (tmp_path / "p").exists()


def test_the_root_of_a_repository_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").write_text("/mine\n.venv/\n")
    there = contents(tmp_path)

    def full(*_: object) -> None:
        assert ".*.tmp" in (tmp_path / ".gitignore").read_text()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)  # the weights come last
        assert "No space left on device" in mac("new", tmp_path).stderr
    assert contents(tmp_path) == there
    said = mac("new", tmp_path).output
    assert f"{tmp_path / 'README.md'}: was there, and is kept" in said
    assert f"{tmp_path / '.gitignore'}: added # Unfinished work" in said
    assert (tmp_path / "README.md").read_text() == "mine"
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["/mine", ".venv/"]
    assert lines.count(".venv/") == lines.count(".*.tmp") == 1
    made = contents(tmp_path)
    assert "the code of all stages is the same" in mac("upgrade", tmp_path).output
    assert contents(tmp_path) == made  # nothing was left to add


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
    hidden = tmp_path / "data/.gitignore"
    hidden.write_text("/mine" + hidden.read_text().replace("/mlflow\n", ""))
    said = mac("upgrade", tmp_path).output
    assert f"{params}: added train.keep_epochs: [] # ours" in said
    assert f"{params}: train.keep is no parameter any more" in said
    assert f"wrote {tmp_path / 'dvc.yaml'}" in said
    assert f"from mac-robust 0.0.9 to {here.version}" in said
    assert "new code: masks, jtt; 'dvc repro' runs these again" in said
    assert f"{hidden}: added /images.h5, /mlflow" in said
    assert {path for path, text in contents(tmp_path).items() if made[path] != text} == {params, hidden}
    assert "/mine/images.h5\n" in hidden.read_text()
    (tmp_path / "dvc.yaml").write_bytes(b"\xff")
    assert f"wrote {tmp_path / 'dvc.yaml'}" in mac("upgrade", tmp_path).output
    assert (tmp_path / "dvc.yaml").read_bytes() == made[tmp_path / "dvc.yaml"]
    (tmp_path / LOCK).unlink()
    assert "there is none" in mac("upgrade", tmp_path).stderr


def test_upgrade_sets_up_dvc_that_was_installed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    with monkeypatch.context() as patch:
        patch.setattr(own_project, "has_dvc", lambda: False)
        assert "'mac upgrade' sets it up" in mac("new", tmp_path / "p").output
    assert "below the git repository" in mac("upgrade", tmp_path / "p").output
    assert "type = reflink" in (tmp_path / "p/.dvc/config").read_text()
    assert "data/scratch/" in (tmp_path / "p/.dvcignore").read_text()
    assert "prepare" in [stage.name for stage in Repo(str(tmp_path / "p")).index.stages]
    assert "set up" not in mac("upgrade", tmp_path / "p").output


@pytest.mark.usefixtures("without_dvc")
def test_a_value_that_is_wrong_now_is_said_before_mac_lock_is_written(tmp_path: Path) -> None:
    mac("new", tmp_path)
    (tmp_path / LOCK).write_text("")
    params = tmp_path / "params.yaml"
    params.write_text(presets.text("demo").replace("  epochs: 18", "  epochs: many", 1))
    assert "train.epochs" in mac("upgrade", tmp_path).stderr
    assert (tmp_path / LOCK).stat().st_size == 0
