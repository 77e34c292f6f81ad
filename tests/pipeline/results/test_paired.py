"""MaC against other methods, paired over test images."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.metrics import Grouping
from pipeline.project import Project
from pipeline.results.paired import compared, difference
from pipeline.results.verdict import Difference
from pipeline.steps.evaluate import measure
from tests import made_up

GROUP = np.repeat([0, 1, 3], [80, 30, 50])
GROUPING = Grouping("group", ["a", "b", "nobody", "c"], GROUP)


def answers(seed: int, heads: int, *accuracy: float) -> NDArray[np.bool_]:
    """Whether heads are right about the rows: with an accuracy for each group."""
    right = np.array([accuracy[0], accuracy[1], np.nan, accuracy[2]])[GROUP]
    return np.random.default_rng(seed).random((heads, len(GROUP))) < right


def worst(right: NDArray[np.bool_], rows: NDArray[np.int64]) -> float:
    """The worst-group accuracy on some rows, the mean over heads: one head after the other."""
    lowest = []
    for head in right:
        lowest.append(min(head[rows][GROUP[rows] == g].mean() for g in (0, 1, 3)))
    return float(np.mean(lowest))


def test_the_interval_is_that_of_a_plain_loop() -> None:
    mac, other = answers(1, 3, 0.9, 0.8, 0.85), answers(2, 2, 0.95, 0.6, 0.9)
    found = difference("other", mac, other, GROUPING)
    rows, rng = np.arange(len(GROUP)), np.random.default_rng(7)
    members = [np.flatnonzero(g == GROUP) for g in (0, 1, 3)]
    here = worst(mac, rows) - worst(other, rows)
    resampled = []
    for _ in range(1500):
        drawn = np.concatenate([rng.choice(of_group, len(of_group)) for of_group in members])
        resampled.append(worst(mac, drawn) - worst(other, drawn))
    low, high = (2 * here - np.percentile(resampled, end) for end in (97.5, 2.5))
    assert found.title == "other"
    assert found.mean == pytest.approx(here)
    assert found.low == pytest.approx(low, abs=0.015)
    assert found.high == pytest.approx(high, abs=0.015)
    assert found.mean_accuracy == pytest.approx(mac.mean() - other.mean())
    assert found.word == "better than"


def test_a_method_compared_with_itself_does_not_differ() -> None:
    mac = answers(1, 3, 0.9, 0.8, 0.85)
    assert difference("itself", mac, mac, GROUPING) == Difference("itself", 0, 0, 0, 0)


def test_what_both_get_wrong_does_not_widen_the_interval() -> None:
    """They differ in 5 of the 30 images of the worst group: two samples of 30 would not tell them apart."""
    other = answers(1, 1, 0.9, 0.5, 0.9)
    mac = other.copy()
    mac[0, np.flatnonzero(~other[0] & (GROUP == 1))[:5]] = True
    found = difference("other", mac, other, GROUPING)
    assert found.mean == pytest.approx(5 / 30)
    assert found.low > 0


def test_a_difference_stays_between_its_ends() -> None:
    found = difference("other", np.ones((1, 160), np.bool_), np.zeros((1, 160), np.bool_), GROUPING)
    assert found == Difference("other", 1, 1, 1, 1)


def of_project(project: Project, *more: str) -> dict[str, Any]:
    with project.open("images", "erm", "features", "retrained", "baselines", *more) as given:
        return compared(given, measure(given)[0])


def test_each_method_of_a_project_is_compared(artefacts: Project) -> None:
    found = of_project(artefacts)
    assert list(found["compared"]) == ["erm", "dfr", "llr"]
    assert found["best_other"] == "llr"  # DFR is trained on group labels
    with artefacts.open("images", "erm", "features", "retrained") as given:
        grouping, features = given.grouping("test"), given.file("features")
        x, label = features["test/original"][:], features["test/label"][:]
        mac, erm = given.model("retrained").heads(), given.model("erm").head()
        right = [
            np.stack([(x @ w.T + b).argmax(1) == label for w, b in zip(h.weight, h.bias, strict=True)])
            for h in (mac, erm)
        ]
        metrics, _ = measure(given)
    assert found["compared"]["erm"] == asdict(difference("ERM", *right, grouping))
    of_erm, of_mac = metrics["erm"]["test"], metrics["mac"]["test"]
    of_worst = of_mac["worst_group"]["mean"] - of_erm["worst_group"]
    assert found["compared"]["erm"]["mean"] == pytest.approx(of_worst)
    of_mean = of_mac["raw_mean"]["mean"] - of_erm["raw_mean"]
    assert found["compared"]["erm"]["mean_accuracy"] == pytest.approx(of_mean)


def test_whole_networks_are_compared_by_their_answers(own_artefacts: Project) -> None:
    made_up.write_compared(own_artefacts)
    found = of_project(own_artefacts, "jtt", "masktune")
    of_erm = {**found["compared"]["erm"], "title": "JTT"}
    assert found["compared"]["jtt"] == of_erm  # the made-up JTT is ERM


def test_methods_of_other_groups_are_refused(own_artefacts: Project) -> None:
    with own_artefacts.open("images", "erm", "features", "retrained", "baselines") as given:
        metrics, _ = measure(given)
        metrics["erm"]["test"]["worst_class"] = metrics["erm"]["test"].pop("worst_group")
        message = (
            "baselines: the results of ERM have no worst_class, and so belong to other images; run 'mac b"
        )
        with pytest.raises(MacError, match=message):
            compared(given, metrics)
