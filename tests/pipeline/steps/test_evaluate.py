import csv
import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import graph
from pipeline.errors import MacError
from pipeline.params.baselines import BaselinesParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.sweep import PenaltyParams
from pipeline.project import Project
from pipeline.results import evaluation
from pipeline.results.choice import NOT_RETRAINED
from pipeline.results.convergence import whole_diagnosis
from pipeline.results.diagnosis_words import said
from pipeline.results.evaluation import verdict_of
from pipeline.results.paired import compared
from pipeline.results.verdict import OF_CLASSES
from pipeline.steps.baselines import baselines
from pipeline.steps.evaluate import evaluate, measure
from pipeline.steps.retrain import retrain
from pipeline.store import FittedHeads
from tests import cached, made_up
from tests.cached import GROUPS, fit_params

NEEDS = graph.stage("evaluate").needs


def retrained(data: Path, *unknown: str) -> Project:
    """A project with two retrained heads, and with other methods."""
    project = cached.write(data, unknown=unknown)
    params = RetrainParams(**fit_params().model_dump(), alpha=1.0, beta=2.0)
    with project.open("erm", "features") as given:
        retrain(given, project.path("retrained"), params, cached.AUTO, cached.context(data))
    others = BaselinesParams(methods=["erm", "llr", "class_scaling", "llr_groups"])
    with project.open("images", "erm", "features") as given:
        of_fit = (PenaltyParams(l2s=[0, 0.1]), fit_params(), cached.AUTO, cached.context(data))
        baselines(given, project.path("baselines"), others, *of_fit)
    return project


def test_metrics_equal_a_count_by_hand(tmp_path: Path) -> None:
    project = retrained(tmp_path)
    with project.open(*NEEDS) as given:
        features, erm, mac = (
            given.file("features"),
            given.model("erm").head(),
            given.model("retrained").heads(),
        )
        x, label, attribute = (features[f"test/{name}"][:] for name in ("original", "label", "attribute"))
        training = np.bincount(2 * features["train/label"][:] + features["train/attribute"][:])
        metrics, _ = measure(given)
    group = 2 * label + attribute

    def accuracies(heads: FittedHeads) -> list[float]:
        correct = (x @ heads.weight[0].T + heads.bias[0]).argmax(1) == label
        return [correct[group == g].mean() for g in range(4)]

    expected = accuracies(erm)
    found = metrics["erm"]["test"]
    assert found["groups"] == pytest.approx(dict(zip(GROUPS, expected, strict=True)))
    assert found["worst_group"] == pytest.approx(min(expected))
    assert found["raw_mean"] == pytest.approx(np.average(expected, weights=np.bincount(group)))
    assert found["adjusted_mean"] == pytest.approx(np.average(expected, weights=training))
    worst = [min(accuracies(mac[seed])) for seed in range(2)]
    found = metrics["mac"]["test"]["worst_group"]
    assert found["mean"] == pytest.approx(np.mean(worst))
    assert found["std"] == pytest.approx(np.std(worst, ddof=1))
    assert metrics["count"]["test"] == dict(zip(GROUPS, np.bincount(group), strict=True))
    assert set(metrics["count"]) == {"val", "test"}
    assert metrics["seeds"] == 2
    assert metrics["setting"] == {"alpha": 1, "beta": 2, "chosen_by": "params"}


def test_the_confusion_is_of_the_head_that_is_in_the_model(tmp_path: Path) -> None:
    project = retrained(tmp_path)
    with project.open(*NEEDS) as given:
        _, confusion = measure(given)
        head, features = given.model("retrained").head(), given.file("features")
        seen = (features["test/original"][:] @ head.weight[0].T + head.bias[0]).argmax(1)
        pairs = [
            (cached.CLASSES[a], cached.CLASSES[b]) for a, b in zip(features["test/label"], seen, strict=True)
        ]
    assert [(row["actual"], row["predicted"]) for row in confusion] == pairs


def test_files_and_table_show_the_same_numbers(tmp_path: Path) -> None:
    project = retrained(tmp_path)
    with project.open(*NEEDS) as given:
        table = evaluate(given, project.path("metrics"), project.path("plots"), cached.context(tmp_path))
        measured, confusion = measure(given)
        diagnosis, differences = whole_diagnosis(given), compared(given, measured)
    metrics = json.loads(project.path("metrics").read_text())
    assert metrics == measured | {"diagnosis": diagnosis, **differences}
    assert table.startswith(str(verdict_of(metrics)) + "\n\ntest accuracy, %")
    assert diagnosis["images"] == cached.COUNTS["val"]
    assert table.endswith("\n".join(["", "", *said(diagnosis)]))
    mac = metrics["mac"]["test"]
    line = next(line for line in table.splitlines() if line.startswith("worst group"))
    assert f"{100 * metrics['erm']['test']['worst_group']:.2f}" in line
    assert f"{100 * mac['worst_group']['mean']:.2f} ± {100 * mac['worst_group']['std']:.2f}" in line
    assert "over test images (bootstrap), for the heads of one ERM run: ERM " in table
    assert "MaC: mean ± standard deviation over 2 retrained heads of one ERM run\nMaC: set in params" in table
    assert "\nMaC: set in params.yaml: α = 1, β = 2\n" in table
    bars = list(csv.DictReader((project.path("plots") / "groups.csv").read_text().splitlines()))
    assert [row["bar"] for row in bars[-2:]] == ["worst_group (ERM)", "worst_group (MaC)"]
    assert [row["group"] for row in bars[:-2:2]] == list(GROUPS)
    assert float(bars[-1]["accuracy"]) == mac["worst_group"]["mean"]
    assert float(bars[1]["std"]) == mac["groups"][GROUPS[0]]["std"]
    assert float(bars[0]["std"]) == 0
    rows = list(csv.DictReader((project.path("plots") / "confusion.csv").read_text().splitlines()))
    assert rows == confusion


def test_a_split_without_attributes_is_measured_by_class(tmp_path: Path) -> None:
    project = retrained(tmp_path, "test")
    with project.open(*NEEDS) as given:
        table = evaluate(given, project.path("metrics"), project.path("plots"), cached.context(tmp_path))
        metrics, _ = measure(given)
    assert "worst class in place of worst group" in table
    assert OF_CLASSES in table.partition("\n")[0]
    assert set(metrics["erm"]["test"]["classes"]) == set(cached.CLASSES)
    assert "adjusted_mean" not in metrics["erm"]["test"]
    assert "adjusted_mean" in metrics["erm"]["val"]


def test_erm_as_it_is_is_said_and_measured(own_artefacts: Project) -> None:
    made_up.prefer_erm(own_artefacts)
    with own_artefacts.open(*NEEDS) as given:
        context = cached.context(own_artefacts.data)
        table = evaluate(given, own_artefacts.path("metrics"), own_artefacts.path("plots"), context)
    metrics = json.loads(own_artefacts.path("metrics").read_text())
    assert f"\nMaC: {NOT_RETRAINED}\n" in table
    shown = evaluation.in_words(metrics)  # as `mac inspect metrics.json` shows it
    assert shown == table.replace(NOT_RETRAINED, "picked by stage sweep: ERM as it is")
    assert shown.startswith(
        "MaC keeps ERM's head as it is here. On the worst group MaC is no better than ERM (no "
    )
    assert set(metrics["compared"]["erm"].values()) == {"ERM", 0}
    assert metrics["setting"] == {"alpha": None, "beta": None, "chosen_by": "sweep"}
    for name, value in metrics["erm"]["test"]["groups"].items():
        assert metrics["mac"]["test"]["groups"][name] == {"mean": value, "std": 0}


def test_it_needs_no_pytorch() -> None:
    code = "import sys, pipeline.steps.evaluate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_does_not_end_the_script_of_dvc_s_page(tmp_path: Path) -> None:
    spec = replace(made_up.SPEC, classes=("</script><b>", "=1+1"), attributes=())
    project = made_up.write(tmp_path, spec=spec)
    with project.open(*NEEDS) as given:
        evaluate(given, project.path("metrics"), project.path("plots"), cached.context(project.data))
    files = [project.path("plots") / name for name in ("groups.csv", "confusion.csv")]
    assert not any("<" in file.read_text() for file in files)
    seen = {row["actual"] for row in csv.DictReader(files[1].read_text().splitlines())}
    assert seen == {"‹/script>‹b>", "'=1+1"}
    assert set(json.loads(project.path("metrics").read_text())["erm"]["test"]["classes"]) == set(spec.classes)


def test_an_error_leaves_both_outputs_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, (metrics, plots) = retrained(tmp_path), (tmp_path / "metrics.json", tmp_path / "plots")
    metrics.write_text("old")
    plots.mkdir()
    (plots / "old.csv").touch()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.store.write_csv", full)
    with project.open(*NEEDS) as given, pytest.raises(MacError, match=r"cannot be written \(No space left"):
        evaluate(given, metrics, plots, cached.context(tmp_path))
    assert metrics.read_text() == "old"
    assert [file.name for file in plots.iterdir()] == ["old.csv"]
    assert not list(tmp_path.glob(".*.tmp"))
