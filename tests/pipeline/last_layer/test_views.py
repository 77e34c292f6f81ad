from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from pipeline.last_layer import table, views
from pipeline.last_layer.table import Streamed
from pipeline.last_layer.views import Views, class_weights
from tests import cached
from tests.cached import batches, fit_params, interventions, originals
from tests.conftest import edited


def test_views_are_those_of_the_file(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    with project.open("features") as given:
        features = given.file("features")
        views = Views.of(features, fit_params(class_weights="balanced"), torch.device("cpu"))
        bare = Views.of(features, fit_params(), torch.device("cpu"), interventions=False)
        np.testing.assert_array_equal(originals(views), features["train/original"][:])
        for r, order in enumerate(features["train/order"][:]):
            for of_rows, name in zip(interventions(views), ("masked", "combined"), strict=True):
                np.testing.assert_array_equal(of_rows[r, order], features[f"train/{name}"][r])
        np.testing.assert_array_equal(batches(views), features["train/batch"][:])
        np.testing.assert_array_equal(views.label, features["train/label"][:])
    assert torch.equal(views.weight, class_weights(views.label, "balanced"))
    assert torch.equal(views.intervention_weight, views.weight)
    assert torch.equal(originals(bare), originals(views))
    assert len(bare.table) == 60
    assert torch.equal(bare.weight, torch.ones(60))


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_rows_that_are_left_as_they_are_have_no_say_in_the_interventions(
    tmp_path: Path, weights: Literal["none", "balanced"]
) -> None:
    project = cached.write(tmp_path)
    among = np.arange(60) % 3 > 0
    with edited(project.path("features")) as file:
        file["train/intervened"] = among
    with project.open("features") as given:
        views = Views.of(given.file("features"), fit_params(class_weights=weights), torch.device("cpu"))
    assert torch.equal(views.weight, class_weights(views.label, weights))
    alone = class_weights(views.label[among], weights)
    found = views.intervention_weight
    assert not found[~among].any()
    torch.testing.assert_close(found[among] / len(found), alone / len(alone))
    assert found.mean().item() == pytest.approx(1)


def test_some_rows_are_read_once_if_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK", 7 * 4 * cached.WIDTH)
    with cached.write(tmp_path).open("features") as given:
        of_file = Views.of(given.file("features"), fit_params(memory="streamed"), torch.device("cpu"))
    read, some = [], torch.arange(60) % 3 > 0
    plain = Streamed.rows
    monkeypatch.setattr(Streamed, "rows", lambda *given: read.append(1) or plain(*given))
    for rows, free, times in ((some, 1e9, 1), (some, 1, 2), (some | True, 1e9, 2)):
        monkeypatch.setattr(views, "free_memory", lambda _, free=free: free)
        expected = [block.clone() for block in of_file.originals(rows)]
        read.clear()
        begin = of_file.repeated(rows)
        for _ in range(2):
            found = [block.clone() for block in begin()]
            assert all(map(torch.equal, found, expected))
            assert [len(each) for each in found] == [len(each) for each in expected]
        assert len(read) == times


def test_a_class_without_a_row_takes_no_weight_from_the_others() -> None:
    """Such as one whose images all have high losses, with `features.low_loss`."""
    assert class_weights(torch.tensor([0, 0, 0, 2]), "balanced").tolist() == pytest.approx([2 / 3] * 3 + [2])


def test_balanced_class_weights_give_every_class_the_same_total() -> None:
    label = torch.tensor([0, 0, 0, 1])
    weight = class_weights(label, "balanced")
    assert weight[label == 0].sum() == weight[label == 1].sum() == 2
    assert class_weights(label, "none").tolist() == [1, 1, 1, 1]
