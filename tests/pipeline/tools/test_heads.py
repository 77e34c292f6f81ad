import json

import numpy as np
import pytest

from pipeline.errors import MacError
from pipeline.last_layer.methods import METHODS
from pipeline.project import Project
from pipeline.tools.heads import NAMES, NamedHead, artefact_of, named_head


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


def test_erm_that_was_chosen_by_its_best_epoch_saw_group_labels(own_artefacts: Project) -> None:
    file = own_artefacts.path("erm") / "model.json"
    about = json.loads(file.read_text())
    about["params"]["train"]["select"] = "best"
    file.write_text(json.dumps(about))
    assert head(own_artefacts, "erm").labels == "validation, to choose"


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
        MacError, match="baselines: afr was not fitted, only erm, dfr; add it to baselines.methods"
    ):
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
    with pytest.raises(MacError, match="metrics.json: cannot be read .* run 'mac baselines'"):
        head(own_artefacts, "dfr")
