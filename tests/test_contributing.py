"""CONTRIBUTING.md: what it tells to add is added to a copy of the repository as it stands there, and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import store
from tests.conftest import REPOSITORY, Project
from tests.generated import DVC_FILES


class Copy:
    """A copy of the code, with the diffs of a section of CONTRIBUTING.md applied."""

    def __init__(self, folder: Path, section: str) -> None:
        self.folder = folder
        for part in ("pipeline", "stages", "tests"):
            shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "setup.cfg", "README.md", *DVC_FILES):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / file, folder / file)
        text = (REPOSITORY / "CONTRIBUTING.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
        (diff,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
        for part in re.split(r"^\+\+\+ ", diff, flags=re.MULTILINE)[1:]:
            name, *lines = part.splitlines()
            self._apply(folder / name, lines)

    def _apply(self, file: Path, lines: list[str]) -> None:
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        text = file.read_text() if before else ""
        assert not before or text.count(before) == 1, f"{file.name} has this {text.count(before)} times:\n{before}"
        assert before or not file.exists()
        file.write_text(text.replace(before, after) if before else after)

    def python(self, *arguments: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run([sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def mac(self, project: Project, stage: str) -> str:
        return self.python("-m", "stages", stage, "--params", project.params_file, "--data", project.data)

    def passes_the_linters(self) -> None:
        """And what is made from the code can be made anew."""
        self.python("-m", "tests.generated")
        self.python("-m", "ruff", "check", "pipeline")
        self.python("-m", "ruff", "format", "--check", "pipeline")


def test_add_a_saliency_map(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a saliency map")
    copy.passes_the_linters()
    assert "`energy`" in (copy.folder / "README.md").read_text()
    project.set(saliency__method="energy")
    copy.mac(project, "saliency")
    with store.open_artefact(project.data / "masks.h5") as masks:
        assert masks.provenance.params["method"] == "energy"
        assert (masks["cam"][:] >= 0).all()
        assert masks["cam"][:].any()


def test_add_a_method_of_the_last_layer(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a method of the last layer")
    copy.passes_the_linters()
    assert "pipeline/last_layer/nearest_mean.py" in (copy.folder / "dvc.yaml").read_text()
    project.set(baselines__methods=["erm", "nearest_mean"])
    assert "Nearest mean" in copy.mac(project, "baselines")
    with store.open_artefact(project.data / "features.h5") as features:
        x, label = features["train/original"][:], features["train/label"][:]
        mean = np.stack([x[label == c].mean(0) for c in range(2)])
        answer = np.square(features["test/original"][:][:, None] - mean).sum(2).argmin(1)
        right = (answer == features["test/label"][:]).mean()
    found = store.read_json(project.data / "baselines.json", "")["methods"]["nearest_mean"]["test"]["raw_mean"]["mean"]
    assert found == pytest.approx(right, abs=0.05)  # of 32 images, features so alike that rounding decides some


def test_add_a_dataset(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a dataset")
    copy.passes_the_linters()
    rng = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for group in ("cat_indoors", "dog_outdoors"):
            (tmp_path / "rooms" / part / group).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "rooms" / part / group / f"{number}.png")
    project.set(dataset__name="rooms", dataset__root=str(tmp_path / "rooms"))
    copy.mac(project, "prepare")
    with store.open_artefact(project.data / "images.h5") as images:
        assert images.attribute("classes") == ["cat", "dog"]
        assert images["attribute"][:].tolist() == [0, 0, 1, 1] * 3
        assert images["path"][0] == b"test/cat_indoors/0.png"
