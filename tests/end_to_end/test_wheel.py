"""The package as it would be published: installed alone, beside the libraries that are here, and used."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.graph import STAGES
from tests.conftest import REPOSITORY
from tests.end_to_end.clone import stages_in

SMALL = {
    "dataset.root": "data/raw/small",
    "dataset.stored_size": "48",
    "dataset.input_size": "48",
    "train.epochs": "1",
    "features.draws": "1",
    "retrain.seeds": "1",
    "retrain.epochs": "1",
    "retrain.average": "1",
    "baselines.methods": "[erm, llr]",
    "sweep.alphas": "[1]",
    "sweep.betas": "[1, 30]",
    "sweep.seeds": "1",
}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command says that succeeds."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that was built from it."""
    source = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", "-co", "--exclude-standard", cwd=REPOSITORY).splitlines():
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, source / name)
    # In isolation it would fetch setuptools.
    run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    return source / "dist"


def test_it_can_be_published(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=dist)
    with zipfile.ZipFile(wheel) as whole:
        files = set(whole.namelist())
        (metadata,) = [name for name in files if name.endswith(".dist-info/METADATA")]
        about = whole.read(metadata).decode()
    assert "mac new demo" in about
    links = re.findall(r"\]\(([^)]+)\)", about)
    assert links == ["https://dvc.org"]  # a relative one leads nowhere on PyPI
    assert {name.partition("/")[0] for name in files if "dist-info" not in name} == {"pipeline", "stages"}
    listed = run("git", "ls-files", "-co", "--exclude-standard", "pipeline", "stages", cwd=REPOSITORY)
    assert set(listed.splitlines()) <= files  # presets, templates, the page, the demo's weights
    with tarfile.open(sdist) as whole_sdist:
        top = {"/".join(Path(name).parts[1:]) for name in whole_sdist.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md"} <= top


def test_a_small_demo_runs_to_its_report_and_new_code_runs_its_stage_again(
    dist: Path, tmp_path: Path
) -> None:
    environment, project = tmp_path / "environment", tmp_path / "project"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin/python"
    (wheel,) = dist.glob("*.whl")
    run(
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--offline",
        "--no-deps",
        "--python",
        python,
        wheel,
        cwd=tmp_path,
    )
    own = Path(
        run(
            python,
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
            cwd=tmp_path,
            PYTHONPATH="",
        ).strip()
    )
    (own / "libraries.pth").write_text(
        sysconfig.get_path("purelib")
    )  # torch and all others, as they are here

    def of_user(*command: str | Path) -> str:
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        where = project if project.exists() else tmp_path
        return run(*command, cwd=where, PATH=path, PYTHONPATH="", DVC_NO_ANALYTICS="1")

    changes = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    assert "preset demo" in of_user(environment / "bin/mac", "new", "project", *changes)
    assert str(own) in of_user(python, "-c", "import pipeline; print(pipeline.__file__)")
    of_user(environment / "bin/mac", "demo", "data/raw/small", "--every", "60")
    repro = (python, "-m", "dvc", "repro")
    of_main = [each.name for each in STAGES if each.pipeline == "main"]
    assert sorted(stages_in(of_user(*repro))) == sorted(of_main)
    assert "<html" in (project / "data/report.html").read_text(encoding="utf-8")
    with (own / "pipeline/steps/train.py").open("a") as file:
        file.write("# another version\n")
    assert "new code: train, " in of_user(environment / "bin/mac", "upgrade")
    assert stages_in(of_user(*repro)) == ["train"]
