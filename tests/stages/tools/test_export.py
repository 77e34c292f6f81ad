"""mac export on the made-up project."""

import re
from pathlib import Path

from pipeline import project
from tests.conftest import Project


def test_it_says_how_far_the_file_is_from_pytorch(artefacts: project.Project, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    mac = Project(artefacts.data.parent)
    said = mac.succeed("export", "--format", "safetensors", "--model", "dfr", "--out", str(out)).stdout
    assert said.startswith(f"{out} (20 images: logits within ")
    assert said.endswith(f"), {tmp_path / 'MODEL_CARD.md'}\n")
    assert "DFR" in (tmp_path / "MODEL_CARD.md").read_text()


def test_it_says_the_temperature(artefacts: project.Project, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    mac = Project(artefacts.data.parent)
    said = mac.succeed("export", "--format", "safetensors", "--calibrate", "--out", str(out)).stdout
    assert re.search(r"relative to their terms; temperature \d", said)


def test_bad_usage(artefacts: project.Project, tmp_path: Path) -> None:
    out, mac = ["--out", str(tmp_path / "model")], Project(artefacts.data.parent)
    assert "afr was not fitted" in mac.fail("export", "--format", "safetensors", "--model", "afr", *out)
    for options in (["--format", "pickle"], ["--format", "onnx", "--model", "cow"], []):
        assert mac.run("export", *options, *out).exit_code == 2
    assert not list(tmp_path.iterdir())
