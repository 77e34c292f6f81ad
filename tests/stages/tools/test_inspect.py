"""mac inspect: its options on the made-up project."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline import project
from tests.conftest import Project


def commands(artefacts: project.Project) -> Project:
    return Project(artefacts.data.parent)


def rows_of(artefacts: project.Project, *arguments: str) -> list[dict[str, object]]:
    masks = str(artefacts.path("masks"))
    return list(json.loads(commands(artefacts).succeed("inspect", masks, *arguments, "--json").stdout))


@pytest.mark.parametrize("name", ["images.h5", "masks.h5", "features.h5", "erm", "retrained", "baselines"])
def test_every_artefact(artefacts: project.Project, name: str) -> None:
    file = str(artefacts.data / name)
    assert name.partition(".")[0] in commands(artefacts).succeed("inspect", file).stdout
    found = json.loads(commands(artefacts).succeed("inspect", file, "--json").stdout)
    assert found["kind"] == name.partition(".")[0]


def test_group_and_misclassified_leave_others_out(artefacts: project.Project) -> None:
    rows = rows_of(artefacts, "--sort", "disagreement")
    values = [float(str(row["disagreement"])) for row in rows]
    assert values == sorted(values, reverse=True)
    group = str(rows[0]["group"])
    of_group = [row for row in rows if row["group"] == group]
    assert rows_of(artefacts, "--group", group, "--sort", "disagreement") == of_group
    wrong = [row for row in rows if not row["right"]]
    assert 0 < len(wrong) < len(rows)
    assert rows_of(artefacts, "--misclassified", "--sort", "disagreement") == wrong


def test_against_sorts_by_overlap(artefacts: project.Project) -> None:
    rows = rows_of(artefacts, "--against", str(artefacts.path("masks")))
    assert {row["iou"] for row in rows} == {1.0}


def test_as_text_picture_and_csv(artefacts: project.Project, tmp_path: Path) -> None:
    masks, mac = str(artefacts.path("masks")), commands(artefacts)
    text = mac.succeed("inspect", masks, "--sort", "confidence", "--limit", "3").stdout
    assert "confidence: ERM's probability of the image's class, lowest first" in text
    rows = rows_of(artefacts, "--sort", "confidence")
    assert [int(line.split()[0]) for line in text.splitlines()[-3:]] == [row["row"] for row in rows[:3]]
    said = mac.succeed("inspect", masks, "--grid", "3x2", "--out", str(tmp_path / "grid.png")).stdout
    assert said == f"{tmp_path / 'grid.png'}\n"
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (3 * 184 + 8, 2 * 198 + 8)
    mac.succeed("inspect", masks, "--image", "3", "--out", str(tmp_path / "row.png"))
    with Image.open(tmp_path / "row.png") as picture:
        assert picture.size == (5 * 248 + 8, 270)
    mac.succeed("inspect", masks, "--sort", "confidence", "--csv", str(tmp_path / "all.csv"))
    table = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [int(row["row"]) for row in table] == [row["row"] for row in rows]
    assert float(table[0]["confidence"]) == rows[0]["confidence"]
    assert table[-1]["iou"] == ""


def test_bad_usage(artefacts: project.Project, tmp_path: Path) -> None:
    masks, mac = str(artefacts.path("masks")), commands(artefacts)
    assert "--group nobody: no image is of it; there are landbird_land, " in mac.fail(
        "inspect", masks, "--group", "nobody"
    )
    assert "no such file; run 'mac masks'" in mac.fail(
        "inspect", str(tmp_path / "masks.h5"), "--misclassified"
    )
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "x.png")
    assert "cannot be written" in mac.fail("inspect", masks, "--image", "0", "--out", below)
    for arguments in (
        ["--grid", "5x4"],
        ["--grid", "many", "--out", "x.png"],
        ["--out", "x.png"],
        ["--image", "0"],
        ["--sort", "iou"],
    ):
        assert mac.run("inspect", masks, *arguments).exit_code == 2
    assert "--sort iou needs --against" in mac.run("inspect", masks, "--sort", "iou").stderr
    assert not (tmp_path / "x.png").exists()
