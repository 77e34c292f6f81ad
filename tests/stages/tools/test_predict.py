"""mac predict: text, JSON and table of the made-up project's images."""

import csv
import json
from pathlib import Path

import pytest
import torch

from pipeline import project
from pipeline.tools.prediction import Pair, listed, predict
from tests.conftest import Project


def commands(artefacts: project.Project) -> Project:
    return Project(artefacts.data.parent)


def images(artefacts: project.Project) -> list[str]:
    return [str(file) for file in listed([str(artefacts.data.parent / "raw")])[:5]]


@pytest.mark.parametrize("model", ["mac", "dfr"])
def test_as_text_and_as_json(artefacts: project.Project, model: str) -> None:
    mac = commands(artefacts)
    title = {"mac": "MaC", "dfr": "DFR"}[model]
    text = mac.succeed("predict", *images(artefacts), "--model", model).stdout.splitlines()
    lines = mac.succeed("predict", *images(artefacts), "--model", model, "--json").stdout.splitlines()
    pair = Pair.load(artefacts, model, torch.device("cpu"))
    expected = predict(pair, [Path(file) for file in images(artefacts)])
    for said, line, found in zip(text, lines, expected, strict=True):
        row = json.loads(line)
        assert list(row) == ["path", "erm", model]
        for name in ("erm", model):
            assert row[name]["class"] == found.as_row(pair)[name]["class"]
            assert row[name]["probability"] == pytest.approx(found.as_row(pair)[name]["probability"])
        seen, probability = row[model]["class"], row[model]["probability"]
        assert said.startswith(row["path"])
        assert f"{title} {seen} {100 * probability[seen]:.1f} %" in said
        assert f"ERM {row['erm']['class']} " in said


def test_as_a_table_and_files_that_cannot_be_read(
    artefacts: project.Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out.csv"
    commands(artefacts).succeed("predict", *images(artefacts), str(tmp_path), "--csv", str(out))
    assert "broken.jpg: cannot be read as an image" in caplog.text
    assert "1 of 6 files cannot be read" in caplog.text
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["path"] for row in rows] == [*images(artefacts), str(tmp_path / "broken.jpg")]
    assert float(rows[0]["erm: landbird"]) + float(rows[0]["erm: waterbird"]) == pytest.approx(1)
    assert rows[5]["erm"] == rows[5]["mac: landbird"] == ""
    assert "cannot be read as an image" in rows[5]["error"]


def test_bad_usage_is_one_line(artefacts: project.Project, tmp_path: Path) -> None:
    mac = commands(artefacts)
    (tmp_path / "broken.jpg").write_bytes(b"")
    assert "nowhere.jpg: no such file or folder, and no pattern" in mac.fail("predict", "nowhere.jpg")
    assert "none of the files can be read" in mac.fail("predict", str(tmp_path / "broken.jpg"))
    assert "baselines: afr was not fitted" in mac.fail("predict", *images(artefacts), "--model", "afr")
    for model in ("erm", "cow"):
        assert mac.run("predict", *images(artefacts), "--model", model).exit_code == 2
