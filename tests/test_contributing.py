"""CONTRIBUTING.md: its map of the code is right; its recipes, applied to a copy of the repository, run."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.numpy import load_file

from pipeline import store
from pipeline.metrics import UNKNOWN, Groups
from stages.generate import FILES
from tests.conftest import REPOSITORY, Project, open_file

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


class Copy:
    """A copy of the code, with the diffs of a recipe applied."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder = folder
        for part in ("pipeline", "stages"):
            shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "setup.cfg", *FILES):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / file, folder / file)
        text = TEXT.partition(f"### {recipe}\n")[2].partition("\n### ")[0]
        (diff,) = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
        for part in re.split(r"^\+\+\+ ", diff, flags=re.MULTILINE)[1:]:
            name, *lines = part.splitlines()
            self._apply(folder / name, lines)

    def _apply(self, file: Path, lines: list[str]) -> None:
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
        text = file.read_text() if before else ""
        assert not before or text.count(before) == 1, (
            f"{file.name} has this {text.count(before)} times:\n{before}"
        )
        assert before or not file.exists()
        file.write_text(text.replace(before, after) if before else after)

    def python(self, *arguments: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def mac(self, project: Project, *arguments: str) -> str:
        options = ["--data", str(project.data)]
        if arguments[0] not in ("export", "predict"):
            options += ["--params", str(project.params_file)]
        return self.python("-m", "stages", *arguments, *options)

    def module(self, file: str) -> ModuleType:
        """A module of the copy; what it imports is the repository's own."""
        spec = spec_from_file_location("copied", self.folder / file)
        assert spec
        assert spec.loader
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def is_finished(self) -> None:
        """It passes the linters, and what is made from the code is made anew."""
        self.python("-m", "stages.generate")
        self.is_clean()

    def is_clean(self) -> None:
        """It passes the linters."""
        self.python("-m", "ruff", "check", "pipeline")
        self.python("-m", "ruff", "format", "--check", "pipeline")


def test_add_a_saliency_map(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a saliency map")
    copy.is_finished()
    assert "`energy`" in (copy.folder / "docs/reference.md").read_text()
    project.set(saliency__method="energy")
    copy.mac(project, "saliency")
    with open_file(project.data / "maps.h5") as maps:
        assert maps.provenance.params["method"] == "energy"
        assert (maps["cam"][:] >= 0).all()
        assert maps["cam"][:].any()


def test_add_a_method_of_the_last_layer(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a method of the last layer")
    copy.is_finished()
    assert "pipeline/last_layer/nearest_mean.py" in (copy.folder / "dvc.yaml").read_text()
    project.set(baselines__methods=["erm", "nearest_mean"])
    assert "Nearest mean" in copy.mac(project, "baselines")
    with project.open("features") as given:
        x, label = (given.file("features")[f"train/{name}"][:] for name in ("original", "label"))
    mean = np.stack([x[label == c].mean(0, dtype=np.float64) for c in range(2)])
    out = project.folder / "nearest.safetensors"
    said = copy.mac(
        project, "export", "--model", "nearest_mean", "--format", "safetensors", "--out", str(out)
    )
    assert "nearest.safetensors" in said
    head = load_file(out)
    assert head["head.weight"] == pytest.approx(mean, rel=1e-4, abs=1e-6)
    assert head["head.bias"] == pytest.approx(-np.square(mean).sum(1) / 2, rel=1e-4)
    assert "Nearest mean" in (project.folder / "MODEL_CARD.md").read_text()


def test_add_a_dataset(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a dataset")
    copy.is_finished()
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for group in ("cat_indoors", "dog_outdoors"):
            (tmp_path / "rooms" / split / group).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "rooms" / split / group / f"{number}.png")
    project.set(dataset__name="rooms", dataset__root=str(tmp_path / "rooms"))
    copy.mac(project, "prepare")
    with open_file(project.data / "images.h5") as images:
        assert images.attribute("classes") == ["cat", "dog"]
        assert images["attribute"][:].tolist() == [0, 0, 1, 1] * 3
        assert images["path"][0] == b"test/cat_indoors/0.png"


def test_add_a_selection_criterion(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a selection criterion")
    copy.is_clean()
    params, selection = copy.module("pipeline/params/selection.py"), copy.module("pipeline/selection.py")
    name = params.SelectionParams(criterion="doubted").criterion
    assert set(selection.SPOKEN) == set(get_args(params.Criterion))
    assert name in selection.BY_REFERENCE
    rng = np.random.default_rng(0)
    label, logits = rng.permutation(np.repeat([0, 1, 2], (20, 30, 40))), rng.normal(size=(90, 3))
    groups, unknown = Groups(("a", "b", "c"), ()), np.full(90, UNKNOWN)
    found = selection.criterion(name, groups, label, unknown, logits)
    assert selection.criterion_of(found) == name
    assert dict(zip(found.names, found.count.tolist(), strict=True)) == {
        "a_doubted": 10, "a_sure": 10, "b_doubted": 15, "b_sure": 15, "c_doubted": 20, "c_sure": 20,
    }  # fmt: skip
    loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(label), reduction="none").numpy()
    for part in range(3):
        assert loss[found.index == 2 * part].min() > loss[found.index == 2 * part + 1].max()


def test_add_a_backbone(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a backbone")
    copy.is_finished()
    project.set(model__architecture="googlenet", train__epochs=1)
    for stage in ("train", "saliency", "masks", "originals", "features"):
        copy.mac(project, stage)
    with project.open("images", "erm", "features") as given:
        tensors, features = given.model("erm").read(), given.file("features")
        # The features that the stage cached are those of torchvision's own forward pass.
        network = torchvision.models.googlenet(weights=None, num_classes=2, init_weights=False).eval()
        state = {}
        for name, value in tensors.items():
            state[name.removeprefix("trunk.").replace("head.", "fc.")] = torch.tensor(value)
        missing = network.load_state_dict(state, strict=False)
        assert {name.partition(".")[0] for name in missing.missing_keys} == {"aux1", "aux2"}
        assert not missing.unexpected_keys
        row = int(features["test/row"][0])
        pixels = torch.from_numpy(given.file("images")["image"][row][4:68, 4:68]).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = network((pixels / 255 - 0.5) / 0.5)[0]
        head = given.model("erm").head()
        found = torch.tensor(features["test/original"][0] @ head.weight[0].T + head.bias[0])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_add_a_stage(project: Project, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "Add a stage")
    copy.is_finished()
    before = (REPOSITORY / "dvc.yaml").read_text().splitlines()
    after = (copy.folder / "dvc.yaml").read_text().splitlines()
    added = [line for line in after if line not in before]
    assert "    cmd: mac distances" in added
    assert [line for line in before if line not in after] == []  # no other stage depends on it
    assert "distances" in copy.python("-m", "stages", "--help")
    values = project.params_file.read_text()
    project.params_file.write_text(f"{values}\ndistances:\n  order: 2\n" if values.endswith("\n") else values)
    copy.mac(project, "distances")
    found = store.read_json(project.data / "distances/metrics.json", "")
    with project.open("features") as given:
        assert found["made_from"] == given.digests("features")
        x, label = given.file("features")["train/original"][:], given.file("features")["train/label"][:]
    expected = np.linalg.norm(x[label == 0].mean(0) - x[label == 1].mean(0))
    assert found["distances"]["landbird – waterbird"] == pytest.approx(expected)


def functions_of(file: Path) -> set[str]:
    """The functions of a module, and the methods of its classes as `Class.method`."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_the_map_of_the_code_names_functions_that_exist() -> None:
    rows = re.findall(r"^\| [^|]+ \| `([^`|]+\.py)` \| `([^`|]+)` \|$", TEXT, re.MULTILINE)
    assert len(rows) > 20
    for file, function in rows:
        assert function in functions_of(REPOSITORY / file), (file, function)


def test_the_tree_of_folders_is_there() -> None:
    tree = TEXT.partition("```text\npipeline/")[2].partition("```")[0]
    for name in re.findall(r"\b([a-z_]+(?:/|\.py))", tree):
        assert list(REPOSITORY.glob(f"**/{name.rstrip('/')}")), name
