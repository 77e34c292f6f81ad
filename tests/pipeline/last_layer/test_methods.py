"""What holds of all last-layer methods, and of what they start from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from pipeline.last_layer import dfr, erm, group_dro, llr
from pipeline.last_layer.method import Cached, NotApplicableError
from pipeline.last_layer.methods import METHODS
from pipeline.metrics import Grouping
from pipeline.params.baselines import MethodName
from pipeline.splits import unseen_by_erm
from tests import cached as made
from tests.cached import FIT

CPU = torch.device("cpu")


def test_the_registry_has_the_names_that_params_yaml_may_have() -> None:
    assert tuple(METHODS) == get_args(MethodName)


def test_erm_is_its_own_head_and_says_how_its_epoch_was_chosen(cached: Cached) -> None:
    assert torch.equal(erm.fit(cached).heads.weight, cached.erm.weight)
    assert erm.fit(cached).labels == "none"
    chosen = replace(cached, erm_labels="validation, to choose")
    assert erm.fit(chosen).labels == "validation, to choose"


@pytest.mark.parametrize(
    "fit",
    [method.fit for method in (dfr.METHOD, dfr.TRAINING_GROUPS, dfr.L2, group_dro.METHOD, llr.GROUPS)],
    ids=["dfr", "dfr_train", "dfr_l2", "group_dro", "llr_groups"],
)
def test_methods_that_need_groups_say_so(cached: Cached, fit: Callable[[Cached], object]) -> None:
    by_class = replace(
        cached.validation, grouping=Grouping("class", ["a", "b"], cached.validation.label.numpy())
    )
    with pytest.raises(NotApplicableError, match="needs the spurious attribute of every"):
        fit(replace(cached, group=None, validation=by_class))


def test_the_start_is_what_the_artefacts_say(tmp_path: Path) -> None:
    project = made.write(tmp_path, select="best", hold_out=0.25, seed=7)
    with project.open("images", "erm", "features") as given:
        found = Cached.of(given, FIT, [0.0], "auto", CPU)
        features = given.file("features")
        label, attribute = features["train/label"][:], features["train/attribute"][:]
        assert torch.equal(found.erm.weight[0, 0], torch.from_numpy(given.model("erm").head().weight[0]))
        np.testing.assert_array_equal(found.validation.features, features["val/original"][:])
    assert found.group is not None
    np.testing.assert_array_equal(found.group, 2 * label + attribute)
    np.testing.assert_array_equal(found.unseen, unseen_by_erm(label, 0.25, 7))
    assert 0 < found.unseen.sum() < 60
    assert found.erm_labels == "validation, to choose"
    assert len(found.views.table) == 60
    assert found.classes == 2


def test_unknown_training_groups_and_an_erm_that_saw_all_images(tmp_path: Path) -> None:
    project = made.write(tmp_path, unknown=("train",))
    with project.open("images", "erm", "features") as given:
        found = Cached.of(given, FIT, [0.0], "auto", CPU)
    assert found.group is None
    assert not found.unseen.any()
    assert found.erm_labels == "none"
    assert found.validation.grouping.kind == "group"
