"""README, "Your own data": from a folder of images to a retrained model in three commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.end_to_end.clone import DVC, Clone
from tests.readme import commands

pytestmark = pytest.mark.skipif(
    not DVC.exists(), reason="DVC is not installed beside this Python (extra 'dvc')"
)


def images(folder: Path) -> None:
    """Discs and squares, grey or coloured, 8 of each, in different formats and sizes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    for name, shape in (
        ("disc", (y - 24) ** 2 + (x - 32) ** 2 < 200),
        ("square", (abs(y - 24) < 13) & (abs(x - 32) < 13)),
    ):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 120, (48, 64, 3), dtype=np.uint8)
            pixels[shape] += 100
            Image.fromarray(pixels if number % 3 else pixels[..., 0]).save(
                folder / name / f"{number}.{('jpg', 'png', 'webp')[number % 3]}"
            )


def test_three_commands(tmp_path: Path) -> None:
    three = commands("mac init folder --force\n").splitlines()
    assert len(three) == 3
    clone = Clone(tmp_path / "mac")
    images(clone.folder / "data/raw/images")
    # Where torchvision would look first for the weights that it downloads otherwise; random ones do here.
    cached = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), cached)
    clone.environment["TORCH_HOME"] = str(tmp_path / "torch")
    outputs = [clone.run("sh", "-c", three[0])]
    for block, key, value in (("train", "epochs", 2), ("dataset", "input_size", 64), ("retrain", "seeds", 2)):
        clone.set(block, key, value)  # as a user may; thirty epochs at full size take longer
    outputs += [clone.run("sh", "-c", command) for command in three[1:]]
    assert "wrote params.yaml" in outputs[0]
    assert "Running stage 'evaluate'" in outputs[1]
    assert "worst class" in outputs[2]
    assert "square" in outputs[2]
    assert (clone.folder / "data/retrained/model.safetensors").is_file()
    assert set(json.loads((clone.folder / "data/metrics.json").read_text())["mac"]["test"]["classes"]) == {
        "disc",
        "square",
    }
    assert "data/raw/images" not in clone.run(
        "git", "status", "--short", "--untracked-files=all"
    )  # nobody commits them by mistake
