"""benchmarks.flips: what it measures, and how it goes on."""

import json

import click
import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.flips import difference, figures, measured, summary
from benchmarks.waterbirds import CPU
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.methods import METHODS
from pipeline.network.inputs import to_input_grid
from pipeline.project import Project
from tests.cached import FIT, GROUPS


def test_figures_of_flips_are_of_the_test_split_and_of_the_true_masks(artefacts: Project) -> None:
    with artefacts.open("images", "erm", "masks", "features") as given:
        found = figures(given, FIT)
        images, features, masks = (given.file(name) for name in ("images", "features", "masks"))
        held_out = HeldOutSplit.to_measure(features, "test", CPU)
        llr = METHODS["llr"].fit(Cached.of(given, FIT, [0.0], "groups", CPU)).heads
        head, spec = given.model("erm").head(), given.model("erm").spec
        phi, label, attribute = (features[f"test/{key}"][:] for key in ("original", "label", "attribute"))
        right = (phi @ head.weight[0].T + head.bias[0]).argmax(1) == label
        rows, known = masks["row"][:], images["has_foreground"][:]
        true = to_input_grid(torch.from_numpy(images["foreground"][:][rows]), spec).numpy()
        covered = (masks["mask"][:] & true).sum((1, 2)) / true.sum((1, 2))
        group = 2 * images["label"][:][rows] + images["attribute"][:][rows]
    of_group = [right[2 * label + attribute == each].mean() for each in range(4)]
    assert (found["erm_worst"], found["erm_mean"]) == pytest.approx((min(of_group), right.mean()))
    assert found["llr_worst"] == pytest.approx(held_out.scores(llr)[0].mean())
    shares = [covered[(group == each) & known[rows]].mean() for each in range(4)]
    assert found["mask_fg"] == pytest.approx(np.mean(shares))
    assert [found[f"mask_fg {name}"] for name in GROUPS] == pytest.approx(shares)


def test_what_was_measured_is_not_measured_again_and_other_parameters_are_refused(
    own_artefacts: Project,
) -> None:
    data, values = own_artefacts.data, {"retrain": FIT.model_dump()}
    found = measured(values, data, [])
    assert not (data / "features.h5").exists()
    assert measured(values, data, []) == found == json.loads((data / "measured.json").read_text())
    with pytest.raises(click.ClickException, match="other parameters"):
        measured({"retrain": FIT.model_dump() | {"epochs": 5}}, data, [])


def test_the_interval_of_the_differences_is_student_s() -> None:
    without, flipped = [0.6, 0.7, 0.65, 0.8], [0.7, 0.69, 0.75, 0.85]
    mean, half = difference(without, flipped)
    interval = stats.ttest_rel(flipped, without).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx(interval)
    rows = []
    for seed, pair in enumerate(zip(without, flipped, strict=True)):
        for flip in (True, False):
            rows.append({"network": "net", "seed": seed, "flip": flip, "mac_worst": pair[flip]})
    assert "net, 4 runs" in summary(rows)
    assert "| 68.8 (60.0 to 80.0) | 74.8 (69.0 to 85.0) | +6.0 ± 8.3 |" in summary(rows)
