"""mac inspect on masks.h5: sorting, filtering, pictures, tables, another file beside it."""

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline import store
from pipeline.results.coverage import coverage
from pipeline.tools import browse
from stages.cli import main
from tests.conftest import Project


def rows_of(project: Project, *arguments: str) -> list[dict[str, object]]:
    return list(json.loads(project.succeed("inspect", str(project.data / "masks.h5"), *arguments, "--json").stdout))


def test_the_table_is_what_the_artefacts_say(finished: Project) -> None:
    data = finished.data
    rows = rows_of(finished, "--sort", "confidence")
    confidence = [row["confidence"] for row in rows]
    assert confidence == sorted(confidence)  # type: ignore[type-var]
    with store.open_artefact(data / "images.h5") as images, store.open_artefact(data / "masks.h5") as masks:
        assert sorted(row["row"] for row in rows) == masks["row"][:].tolist()  # type: ignore[type-var]
        for group in coverage(images, masks):
            found = [row["coverage"] for row in rows if row["group"] == group.group and row["coverage"] is not None]
            if group.n:
                assert np.mean(found) == pytest.approx(group.mask_fg)  # type: ignore[arg-type]
    for row in rows:
        assert row["right"] == (row["erm"] == str(row["target"]))  # the maps explain the label here
        if not row["right"]:
            assert float(str(row["confidence"])) <= 0.5


def test_group_and_misclassified_leave_others_out(finished: Project) -> None:
    rows = rows_of(finished, "--sort", "disagreement")
    values = [float(str(row["disagreement"])) for row in rows]
    assert values == sorted(values, reverse=True)
    group = str(rows[0]["group"])
    assert rows_of(finished, "--group", group, "--sort", "disagreement") == [row for row in rows if row["group"] == group]
    wrong = rows_of(finished, "--misclassified", "--sort", "disagreement")
    assert wrong == [row for row in rows if not row["right"]]


def test_two_mask_files(finished: Project, project: Project) -> None:
    """The same masks overlap wholly; those of a smaller K lie inside those of a larger: IoU is the ratio of the two."""
    assert {row["iou"] for row in rows_of(finished, "--against", str(finished.data / "masks.h5"))} == {1.0}
    before = project.folder / "before.h5"
    shutil.copy(project.data / "masks.h5", before)
    project.set(saliency__top_k=0.1)
    for stage in ("saliency", "features", "retrain"):
        project.succeed(stage)
    found = {row["iou"] for row in rows_of(project, "--against", str(before))}
    with h5py.File(before) as old, h5py.File(project.data / "masks.h5") as new:
        assert found == {float(new["mask"][0].sum() / old["mask"][0].sum())}


def test_as_text_grid_and_csv(finished: Project, tmp_path: Path) -> None:
    masks = str(finished.data / "masks.h5")
    text = finished.succeed("inspect", masks, "--sort", "confidence", "--limit", "3").stdout
    assert "confidence: ERM's probability of the image's class, lowest first" in text
    assert text.splitlines()[1].startswith("0 ")
    rows = rows_of(finished, "--sort", "confidence")
    listed = text.splitlines()[-3:]
    assert [int(line.split()[0]) for line in listed] == [row["row"] for row in rows[:3]]
    finished.succeed("inspect", masks, "--sort", "confidence", "--grid", "3x2", "--out", str(tmp_path / "grid.png"))
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (3 * 184 + 8, 2 * 198 + 8)
    finished.succeed("inspect", masks, "--sort", "confidence", "--csv", str(tmp_path / "all.csv"))
    table = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [int(row["row"]) for row in table] == [row["row"] for row in rows]
    assert float(table[0]["confidence"]) == rows[0]["confidence"]


def test_histogram() -> None:
    assert browse.histogram(np.array([0.0, 0.0, 1.0])) == "0 █" + " " * 38 + "▄ 1"
    assert browse.histogram(np.array([])) == "0 " + " " * 40 + " 1"


@pytest.mark.parametrize(
    "name", ["images.h5", "masks.h5", "features.h5", "examples.h5", "erm", "retrained", "metrics.json", "baselines.json"]
)
def test_json_of_every_artefact(finished: Project, name: str) -> None:
    found = json.loads(finished.succeed("inspect", str(finished.data / name), "--json").stdout)
    assert found.get("kind", name).startswith(name.partition(".")[0])
    finished.succeed("inspect", str(finished.data / name))


def test_bad_usage(project: Project, tmp_path: Path) -> None:
    masks = str(project.data / "masks.h5")
    assert "--group nobody: no image is of it; there are " in project.fail("inspect", masks, "--group", "nobody")
    assert "holds 'images', expected masks" in project.fail("inspect", str(project.data / "images.h5"), "--sort", "confidence")
    assert "no such file; run 'mac saliency'" in project.fail("inspect", str(tmp_path / "masks.h5"), "--misclassified")
    assert "--sort iou: not known of any image; give --against" in project.fail("inspect", masks, "--sort", "iou")
    images = str(project.data / "images.h5")
    assert "holds 'images', expected masks" in project.fail("inspect", masks, "--against", images)
    for arguments in (["--grid", "5x4"], ["--grid", "many", "--out", "x.png"], ["--out", "x.png"]):
        assert CliRunner().invoke(main, ["inspect", masks, *arguments]).exit_code == 2
