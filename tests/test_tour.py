"""docs/tour.ipynb runs from its top to its end, and what it says of a project is so.

Its cells run here as one program, so nothing of Jupyter has to be installed. All that they have of Jupyter is
a line that begins with `!mac`, with names in braces.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline
from pipeline.spec import IMAGENET
from tests.conftest import REPOSITORY, Project

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'onnx')")

NOTEBOOK = json.loads((REPOSITORY / "docs/tour.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TOP = 'DATA = Path("../data")'
BEFORE: dict[str, Any] = {
    "erm": {"test": {"worst_group": 0.125}},
    "mac": {"test": {"worst_group": {"mean": 0.25}}},
    "setting": "another",
}


def run(cell: str, names: dict[str, Any], project: Project) -> None:
    """One cell, with the names of those before it."""
    python, _, command = cell.partition("!mac ")
    exec(python, names)
    if command:
        project.succeed(*shlex.split(command.format(**names)))


def test_it_runs_and_what_it_says_is_so(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = project.data / "metrics.json"
    now = metrics.read_text()
    metrics.write_text(json.dumps(BEFORE))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(project.data)]
    for words in (["init", "-q"], ["add", "metrics.json"], ["commit", "-qm", "before"]):
        subprocess.run([*git, *words], check=True)
    metrics.write_text(now)
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    names: dict[str, Any] = {}
    for cell in CODE:
        run("".join(cell["source"]).replace(TOP, f"DATA = Path({str(project.data)!r})"), names, project)
    said = " ".join(capsys.readouterr().out.split())
    erm, mac = (json.loads(now)[head]["test"]["worst_group"] for head in ("erm", "mac"))
    assert f"erm 12.5 {100 * erm:.1f} {100 * erm - 12.5:+.1f}" in said
    assert f"mac 25.0 {100 * mac['mean']:.1f} {100 * mac['mean'] - 25:+.1f}" in said
    assert "setting before: another" in said
    with project.open("masks", "images") as given:
        masks, images = given.file("masks"), given.file("images")
        assert f"mask bool {masks['mask'].shape}" in said
        first = names["unsure"][0]["row"]
        assert images["path"][first].decode() in said
        core = masks["mask"][list(masks["row"][:]).index(first)]
        pixels = images["image"][:, 4:68, 4:68]  # of 72 x 72, the network's 64 x 64
    dimmed = np.where(core[..., None], pixels[first], pixels[first] // 4)
    assert np.array_equal(names["shown"][:, :64], dimmed)
    tested = pixels[[row["row"] for row in names["test"]]]
    x = (tested / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    model, _ = pipeline.load_model(project.data / "retrained")
    expected = model(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).detach().numpy()
    assert len(expected) == 8
    assert np.abs(names["logits"] - expected).max() < 0.01 < np.ptp(expected)  # terms of some hundreds cancel
    assert names["difference"] < 0.01


def test_its_outputs_are_there_and_of_no_machine() -> None:
    assert all(cell["execution_count"] for cell in CODE)
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert not re.search(r"/home/|/work/|/tmp/|/root/", json.dumps(outputs))
    assert len(json.dumps(NOTEBOOK)) < 300_000
