import csv
import json

import numpy as np
import pytest
import torch

from pipeline import store
from pipeline.last_layer import mac
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.validation import Validation
from pipeline.parts import held_out
from tests.conftest import Project

CPU = torch.device("cpu")


def test_every_method_has_its_row_with_the_labels_it_saw(finished: Project) -> None:
    results = json.loads((finished.data / "baselines.json").read_text())["methods"]
    assert {name: result["sign"] for name, result in results.items()} == {
        "erm": "✗", "llr": "✓", "cb_llr": "✓", "afr": "✓", "dfr": "✓✓", "dfr_train": "✓✓", "group_dro": "✓✓"
    }  # fmt: skip
    metrics = json.loads((finished.data / "metrics.json").read_text())["erm"]["test"]
    assert results["erm"]["test"]["worst_group"]["mean"] == metrics["worst_group"]
    assert results["llr"]["seeds"] == 2
    assert results["afr"]["seeds"] == 1
    assert "none was held out" in results["afr"]["note"]


def test_the_table_tells_them_apart(project: Project) -> None:
    project.set(baselines__methods=["erm", "afr"], train__select="best")
    output = project.succeed("baselines").output
    assert "✗ none" in output  # the ERM here was trained with select: last
    assert "✓ validation, to choose" in output
    assert "AFR: on images that ERM was trained on" in output


@pytest.mark.parametrize(
    ("methods", "message"), [(["dfr", "xyz"], "baselines.methods: no method xyz; there are erm, llr"), ([], "at least 1")]
)
def test_an_unknown_method_is_one_line(project: Project, methods: list[str], message: str) -> None:
    before = (project.data / "baselines.json").read_text()
    project.set(baselines__methods=methods)
    assert message in project.fail("baselines")
    assert (project.data / "baselines.json").read_text() == before


def test_held_out_images_are_not_trained_on_and_afr_takes_them(project: Project) -> None:
    project.set(train__hold_out=0.25, baselines__methods=["afr"])
    for stage in ("train", "saliency", "features", "baselines"):
        project.succeed(stage)
    results = json.loads((project.data / "baselines.json").read_text())["methods"]
    assert results["afr"]["note"] == ""
    label = np.array([0] * 46 + [1] * 24)
    out = held_out(label, 0.25, 0)
    assert [out[label == c].sum() for c in (0, 1)] == [12, 6]
    with (project.data / "erm/history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_sweep_is_every_setting_fitted_alone(finished: Project) -> None:
    with (finished.data / "sweep/seeds.csv").open() as file:
        seeds = {(float(r["alpha"]), float(r["beta"]), int(r["seed"])): r for r in csv.DictReader(file)}
    assert len(seeds) == 3 * 6 * 2
    params = finished.params.retrain
    with store.open_artefact(finished.data / "features.h5", "features") as cached:
        views, validation = mac.load_views(cached, params, CPU), Validation.of(cached, CPU)
    start = Heads.of(*store.open_model(finished.data / "erm", "erm").head())
    for alpha, beta in ((0.0, 4.0), (2.0, 3.0)):
        alone = mac.fit(views, validation, start, params, [alpha], [beta], [0, 1]).heads
        worst, mean = validation.scores(validation.accuracy(alone))
        for s in (0, 1):
            assert float(seeds[alpha, beta, s]["val_worst"]) == pytest.approx(worst[s, 0].item(), abs=0.1)
            assert float(seeds[alpha, beta, s]["val_mean"]) == pytest.approx(mean[s, 0].item(), abs=0.1)


def test_validation_picks_without_looking_at_the_test_split(finished: Project) -> None:
    with (finished.data / "sweep/mean.csv").open() as file:
        means = list(csv.DictReader(file))
    picked = [row for row in means if row["picked"] == "1"]
    assert len(picked) == 1
    best = max(means, key=lambda row: (float(row["val_worst"]), float(row["val_mean"])))
    assert (picked[0]["val_worst"], picked[0]["val_mean"]) == (best["val_worst"], best["val_mean"])
