"""The method's premise: no group labels in training, or none at all."""

import csv
import html
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import Project, assert_same_masks_features_and_heads, erased


@pytest.fixture(scope="module")
def untold(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """No attribute is known of a training image."""
    return erased(finished, tmp_path_factory.mktemp("untold"), "0")


def test_attributes_of_training_images_change_nothing(finished: Project, untold: Project) -> None:
    assert_same_masks_features_and_heads(finished, untold)


def test_an_adjusted_mean_is_left_out_not_invented(finished: Project, untold: Project) -> None:
    told, without = (json.loads((p.data / "metrics.json").read_text()) for p in (finished, untold))
    for side in ("erm", "mac"):
        del told[side]["test"]["adjusted_mean"]
        assert without[side]["test"] == told[side]["test"]
    assert "adjusted" not in untold.succeed("inspect", str(untold.data / "metrics.json")).output


def test_inspection_says_what_is_not_known(untold: Project) -> None:
    assert "landbird_unknown" in untold.succeed("inspect", str(untold.data / "images.h5")).output
    assert "waterbird_unknown" in untold.succeed("inspect", str(untold.data / "masks.h5")).output
    untold.succeed(
        "inspect", str(untold.data / "masks.h5"), "--image", "0", "--out", str(untold.folder / "x.png")
    )


def assert_all_say_what_sweep_picked(project: Project) -> None:
    """With α and β auto, from the sweep to the exported classifier."""
    project.set(retrain__alpha="auto", retrain__beta="auto")
    for stage in ("retrain", "evaluate", "report"):
        project.succeed(stage)
    picked, made, metrics = (
        json.loads((project.data / f"{name}.json").read_text())
        for name in ("sweep/metrics", "retrained/model", "metrics")
    )
    setting = {name: picked[name] for name in ("alpha", "beta")}
    assert picked["criterion"] == "soft_errors"
    assert made["params"].items() >= {**setting, "chosen_by": "sweep", "labels": "none"}.items()
    assert metrics["setting"] == {**setting, "chosen_by": "sweep"}
    assert html.escape(picked["reason"]) in (project.data / "report.html").read_text()
    out, image = project.folder / "model.safetensors", next((project.folder / "raw").rglob("*.jpg"))
    project.succeed("export", "--format", "safetensors", "--out", str(out))
    assert picked["reason"][1:] in (project.folder / "MODEL_CARD.md").read_text()
    predicted = json.loads(project.succeed("predict", str(image), "--json").stdout)
    if picked["picked"] == "erm":
        assert predicted["mac"] == predicted["erm"]
    else:
        assert predicted["mac"]["class"] in ("landbird", "waterbird")


def test_without_any_attribute_errors_choose_and_results_are_by_class(
    finished: Project, project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, project = project, erased(finished, tmp_path / "untold", "012")
    metrics = json.loads((project.data / "metrics.json").read_text())
    with project.open("features", "erm") as given:
        features, head = given.file("features"), given.model("erm").head()
        label, x = features["test/label"][:], features["test/original"][:]
    correct = (x @ head.weight[0].T + head.bias[0]).argmax(1) == label
    assert metrics["erm"]["test"]["classes"] == {
        name: pytest.approx(correct[label == c].mean()) for c, name in enumerate(("landbird", "waterbird"))
    }
    of_any_grouping = {"raw_mean", "balanced_accuracy", "auroc", "ece", "robust_coverage"}
    assert (
        metrics["erm"]["test"].keys() == {"worst_class", "worst_class_interval", "classes"} | of_any_grouping
    )
    with caplog.at_level(logging.INFO):
        project.succeed("retrain")
    assert "validation: worst class, rows that ERM doubts weighing more 0." in caplog.text
    table = project.succeed("inspect", str(project.data / "metrics.json")).output
    assert "worst class" in table
    assert "not known" in table
    rows = list(csv.DictReader((project.data / "retrained/history.csv").read_text().splitlines()))
    metrics = json.loads((project.data / "retrained/metrics.json").read_text())
    assert metrics["criterion"] == "soft_errors"
    for seed, epoch in enumerate(metrics["epoch"]):
        scores = [
            (float(row["val_worst"]), float(row["val_mean"])) for row in rows if row["seed"] == str(seed)
        ]
        assert epoch == 1 + scores.index(max(scores))
    assert "✗ none" in project.succeed("inspect", str(project.data / "baselines/metrics.json")).output
    assert_all_say_what_sweep_picked(project)
    project.set(**{f"retrain__{name}": told.params.values["retrain"][name] for name in ("alpha", "beta")})
    project.succeed("retrain")
    # With the attributes, which are not read then, the heads are the same.
    told.set(selection__criterion="soft_errors")
    told.succeed("retrain")
    told.succeed("baselines")
    for file in ("retrained/head", "retrained/model", "baselines/model"):
        one, other = (load_file(each.data / f"{file}.safetensors") for each in (told, project))
        for name in one.keys() & other.keys():  # the baselines with groups are left out
            np.testing.assert_array_equal(one[name], other[name])
