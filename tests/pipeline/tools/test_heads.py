import json
from typing import Any

import numpy as np
import pytest

from pipeline.errors import MacError
from pipeline.last_layer.methods import METHODS
from pipeline.project import Project
from pipeline.results.choice import NOT_RETRAINED
from pipeline.tools.heads import NAMES, NamedHead, artefact_of, named_head
from tests import made_up
from tests.conftest import restate


def head(project: Project, name: str) -> NamedHead:
    with project.open(artefact_of(name)) as given:
        return named_head(given, name)


def test_every_method_of_the_last_layer_can_be_asked_for() -> None:
    assert set(NAMES) == {*METHODS, "mac"}


def test_erm_and_mac(artefacts: Project) -> None:
    with artefacts.open("erm", "retrained") as given:
        erm, retrained = given.model("erm"), given.model("retrained")
        first, second = named_head(given, "erm"), named_head(given, "mac")
        np.testing.assert_array_equal(first.head.weight, erm.head().weight)
        np.testing.assert_array_equal(second.head.weight, retrained.read()["head.weight"][None])
        assert (first.digest, second.digest) == (erm.digest, retrained.digest)
    assert (first.title, first.labels, first.count, first.chosen) == ("ERM", "none", 1, {})
    assert (second.title, second.labels, second.count) == ("MaC", "validation, to choose", 2)
    assert second.chosen == {"alpha": 1.0, "beta": 2.0}
    assert second.note == "set in params.yaml: α = 1, β = 2"


def test_mac_can_be_erm_as_it_is(own_artefacts: Project) -> None:
    made_up.prefer_erm(own_artefacts)
    erm, mac = head(own_artefacts, "erm"), head(own_artefacts, "mac")
    np.testing.assert_array_equal(mac.head.weight, erm.head.weight)
    np.testing.assert_array_equal(mac.head.bias, erm.head.bias)
    assert (mac.count, mac.chosen, mac.note) == (1, {}, NOT_RETRAINED)


def test_erm_that_was_chosen_by_its_best_epoch_saw_group_labels(own_artefacts: Project) -> None:
    erm = own_artefacts.path("erm")
    restate(erm, lambda about: about["params"]["train"].update(select="best"))
    assert head(own_artefacts, "erm").labels == "validation, to choose"
    restate(erm, lambda about: about["params"]["selection"].update(criterion="soft_errors"))
    assert head(own_artefacts, "erm").labels == "none"


def test_a_baseline_is_the_head_that_validation_prefers(artefacts: Project) -> None:
    found = head(artefacts, "dfr")
    tensors = artefacts.path("baselines")
    with artefacts.open("baselines") as given:
        tensors = given.model("baselines").read()
        assert found.digest == given.model("baselines").digest
    np.testing.assert_array_equal(found.head.weight, tensors["dfr.weight"][2:])
    np.testing.assert_array_equal(found.head.bias, tensors["dfr.bias"][2:])
    assert (found.title, found.source, found.labels) == (
        "DFR",
        "Kirichenko et al. 2023",
        "validation, to train",
    )
    assert (found.chosen, found.count, found.note) == ({"C": 0.3}, 3, "")


def test_what_was_not_fitted_or_does_not_exist_is_named(own_artefacts: Project) -> None:
    with pytest.raises(
        MacError, match="baselines: self was not fitted, only erm, dfr, llr; add it to baselines.methods"
    ):
        head(own_artefacts, "self")
    with pytest.raises(MacError, match="baselines: afr was not fitted: train.hold_out is 0$"):
        head(own_artefacts, "afr")
    with pytest.raises(MacError, match="cow: no method has this name; there are erm, mac, llr"):
        head(own_artefacts, "cow")
    file = own_artefacts.path("baselines") / "metrics.json"
    found = json.loads(file.read_text())
    del found["methods"]["dfr"]["head_seed"]
    file.write_text(json.dumps(found))
    with pytest.raises(MacError, match="metrics.json: damaged .* run 'mac baselines'"):
        head(own_artefacts, "dfr")
    file.unlink()
    with pytest.raises(MacError, match="metrics.json: no such file; run 'mac baselines'"):
        head(own_artefacts, "dfr")


@pytest.mark.parametrize("key", ["methods", "left_out"])
@pytest.mark.parametrize("value", [None, 3, ["dfr"]])
def test_damaged_metrics_of_the_baselines(own_artefacts: Project, key: str, value: Any) -> None:
    file = own_artefacts.path("baselines") / "metrics.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {key: value}))
    with pytest.raises(MacError, match=f"metrics.json: damaged .{key}: .* run 'mac baselines'"):
        head(own_artefacts, "dfr")


@pytest.mark.parametrize(
    ("key", "value"), [("chosen", None), ("labels", "all"), ("labels", []), ("head_seed", 3)]
)
def test_a_damaged_entry_of_a_method(own_artefacts: Project, key: str, value: Any) -> None:
    file = own_artefacts.path("baselines") / "metrics.json"
    found = json.loads(file.read_text())
    found["methods"]["dfr"][key] = value
    file.write_text(json.dumps(found))
    with pytest.raises(MacError, match="metrics.json: damaged .* run 'mac baselines'"):
        head(own_artefacts, "dfr")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("erm", {}, "erm: model.json does not state train.select; run 'mac train'"),
        ("erm", {"train": None}, "erm: model.json does not state train.select; run 'mac train'"),
        (
            "mac",
            {"beta": 2.0, "reason": ""},
            "retrained: model.json does not state alpha; run 'mac retrain'",
        ),
    ],
)
def test_a_parameter_that_model_json_does_not_state(
    own_artefacts: Project, name: str, params: dict[str, Any], message: str
) -> None:
    restate(own_artefacts.path(artefact_of(name)), lambda about: about.update(params=params))
    with pytest.raises(MacError, match=message):
        head(own_artefacts, name)
