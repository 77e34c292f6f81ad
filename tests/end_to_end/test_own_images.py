"""Three classes and three attributes from a table of one's own, through every stage."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from tests.conftest import STAGES, Project, default_params

CLASSES, ATTRIBUTES = ("circle", "square", "stripe"), ("blue", "green", "red")


def write(root: Path) -> None:
    """Images of one class on one colour mostly; the pair stripe/blue is nowhere in the test split."""
    rng = np.random.default_rng(0)
    root.mkdir()
    rows = []
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        for c, name in enumerate(CLASSES):
            for a, colour in enumerate(ATTRIBUTES):
                if (split, name, colour) == ("test", "stripe", "blue"):
                    continue
                for i in range(count if a == c else 2):
                    image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                    image[..., 2 - a] += 120
                    image[10 + 5 * c : 30 - 5 * c, 10:30] = 255
                    path = f"{split}-{name}-{colour}-{i}.png"
                    Image.fromarray(image).save(root / path)
                    where = colour if split != "train" else ""
                    rows.append({"file": path, "what": name, "part": split, "where": where})
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_three_classes_of_a_table(tmp_path: Path) -> None:
    write(tmp_path / "raw")
    project = Project(tmp_path)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(
        dataset__name="folder", dataset__root=str(tmp_path / "raw"),
        dataset__stored_size=40, dataset__input_size=40,
        dataset__options={
            "metadata": "images.csv", "path": "file", "label": "what", "split": "part", "attribute": "where",
        },
        model__weights="none", train__epochs=2, train__batch_size=8, train__precision="float32",
        features__draws=2, features__batch_size=8, retrain__seeds=2, retrain__epochs=3,
    )  # fmt: skip
    for stage in STAGES:
        project.succeed(stage)
    test = json.loads((project.data / "metrics.json").read_text())["mac"]["test"]
    assert "adjusted_mean" not in test  # nothing is known of the training images' attributes
    assert set(test["groups"]) == {f"{c}_{a}" for c in CLASSES for a in ATTRIBUTES} - {"stripe_blue"}
    found = json.loads((project.data / "baselines/metrics.json").read_text())
    assert found["left_out"] == {
        "dfr_train": {
            "title": "DFR (training groups)",
            "reason": "needs the spurious attribute of every validation and training image",
        },
        "llr_groups": {
            "title": "LLR (training groups)",
            "reason": "needs the spurious attribute of every training image",
        },
        "group_dro": {
            "title": "Group DRO (last layer)",
            "reason": "needs the spurious attribute of every training image",
        },
    }
    assert (
        "Group DRO (last layer) is left out: needs the spurious" in (project.data / "report.html").read_text()
    )
    table = project.succeed("inspect", str(project.data / "metrics.json")).output
    assert "no test images of: stripe_blue" in table
    assert "square_green" in table
    assert "square_unknown" in project.succeed("inspect", str(project.data / "images.h5")).output


def test_a_wrong_option_is_one_line(project: Project) -> None:
    project.set(dataset__name="folder", dataset__options={"metadata": None, "colour": 1})
    assert "params.yaml: dataset.options.colour: unknown key" in project.fail("prepare")
    project.set(dataset__options={})
    assert "params.yaml: dataset.options.metadata: this key is missing" in project.fail("prepare")
