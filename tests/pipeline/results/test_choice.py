"""The sentence that says why a setting was chosen."""

import json
from typing import Any

import numpy as np
import pytest

from pipeline.errors import MacError
from pipeline.params.selection import Criterion
from pipeline.project import Project
from pipeline.results.choice import Choice, Reasoned, by_criterion, by_diagnosis, named, said
from pipeline.results.judgement import Dependence, Verdict
from pipeline.setting import Setting
from tests import made_up
from tests.conftest import restate

PLAIN = "α = β = 0 (plain last-layer retraining)"
PAIRS = [Setting(0, 0), Setting(1, 30)]


def why(
    worst: list[float],
    mean: list[float],
    best: int,
    criterion: Criterion = "groups",
    verdict: Verdict | None = None,
) -> Reasoned:
    """What the criterion picks of ERM and PAIRS."""
    return by_criterion(PAIRS, np.array(worst), np.array(mean), best, 0, criterion, verdict)


def test_the_worst_group_decides() -> None:
    said = "validation (worst group) prefers α = 1, β = 30 by 12.3 points over ERM as it is"
    assert why([0.5, 0.55, 0.623], [0.9, 0.8, 0.7], 1) == (Setting(1, 30), said)


def test_of_equal_worst_groups_the_mean_decides() -> None:
    said = f"validation (worst group) prefers {PLAIN} by 2.5 points of the mean over ERM as it is"
    assert why([0.5, 0.5, 0.4], [0.8, 0.825, 0.9], 0) == (Setting(0, 0), said)


@pytest.mark.parametrize("verdict", ["fails", None])
def test_groups_compare_erm_with_the_best_of_the_others(verdict: Verdict | None) -> None:
    said = (
        "ERM as it is: validation prefers no retraining (worst group / mean 40.9 / 55.5 %; "
        f"with the best α and β, {PLAIN}, 33.6 / 58.3 %)"
    )
    assert why([0.409, 0.336, 0.243], [0.555, 0.583, 0.49], 0, verdict=verdict) == (None, said)
    assert why([0.5, 0.5, 0.4], [0.8, 0.8, 0.9], 0)[0] is None  # equal ones: the simpler


@pytest.mark.parametrize("verdict", ["holds", "doubtful", "unknown"])
def test_other_criteria_compare_pairs_alone(verdict: Verdict) -> None:
    by, limit = "validation (worst class)", "it cannot judge ERM itself"
    said = f"{by} prefers α = 1, β = 30 by 7.3 points over {PLAIN}; {limit}"
    assert why([0.9, 0.55, 0.623], [0.9, 0.8, 0.7], 1, "worst_class", verdict) == (Setting(1, 30), said)
    said = f"{by} prefers {PLAIN} to every other pair; {limit}"
    assert why([0.9, 0.55, 0.5], [0.9, 0.8, 0.7], 0, "worst_class", verdict) == (Setting(0, 0), said)
    _, said = why([0.9, 0.5, 0.5], [0.9, 0.7, 0.8], 1, "soft_errors", verdict)
    assert f"by 10.0 points of the weighted mean over {PLAIN}" in said


def test_where_the_assumption_fails_erm_stays() -> None:
    said = (
        "ERM as it is: the diagnosis says that the method's assumption fails here "
        "(soft_errors cannot judge ERM itself)"
    )
    assert why([0.2, 0.55, 0.623], [0.2, 0.8, 0.7], 1, "soft_errors", "fails") == (None, said)


def test_l2_is_named_where_it_was_picked() -> None:
    settings = [Setting(*each) for each in ((0, 0, 0), (0, 0, 3), (1, 30, 0), (1, 30, 3))]
    worst, mean = np.array([0.4, 0.5, 0.6, 0.7, 0.8]), np.full(5, 0.8)
    said = "validation (worst class) prefers α = 1, β = 30, l2 = 3 by 20.0 points over α = β = 0, l2 = 3"
    found, reason = by_criterion(settings, worst, mean, 3, 1, "worst_class", "holds")
    assert (found, reason.partition(" (plain")[0]) == (settings[3], said)
    _, reason = by_criterion(settings, worst[::-1], mean, 0, 0, "groups", None)
    assert (
        "with the best α, β and l2, α = β = 0, l2 = 0 (plain last-layer retraining), 70.0 / 80.0 %" in reason
    )
    found, reason = by_diagnosis(settings[2], settings[1], "holds", "depends")
    assert (found, reason.partition(",")[0]) == (settings[2], "α = 1")
    assert "l2 = 0, the default: " in reason


@pytest.mark.parametrize(
    ("verdict", "dependence", "expected", "said"),
    [
        ("holds", "depends", Setting(1, 30), "α = 1, β = 30, the default: {} says that ERM dep"),
        (
            "doubtful",
            "depends",
            Setting(1, 30),
            "α = 1, β = 30, the default: {} says that ERM dep",
        ),
        ("holds", "unclear", Setting(0, 0), PLAIN + ": {} does not show that ERM dep"),
        (
            "unknown",
            "unknown",
            Setting(0, 0),
            PLAIN + ": {} could not measure whether ERM dep",
        ),
        ("fails", "depends", None, "ERM as it is: {} says that the method's assumption fails here"),
    ],
)
def test_the_diagnosis_picks(
    verdict: Verdict, dependence: Dependence, expected: Setting | None, said: str
) -> None:
    found, reason = by_diagnosis(PAIRS[1], PAIRS[0], verdict, dependence)
    assert found == expected
    assert reason.startswith(said.format("the diagnosis"))


def test_a_choice_has_l2_where_it_was_picked() -> None:
    choice = Choice(1, 30, 3, "sweep_l2", "")
    assert choice.setting == Setting(1, 30, 3)
    assert choice.values == {"alpha": 1, "beta": 30, "l2": 3, "chosen_by": "sweep_l2"}
    assert choice.numbers == {"alpha": 1, "beta": 30, "l2": 3}
    erm = Choice(None, None, None, "sweep_l2", "")
    assert erm.values == {"alpha": None, "beta": None, "l2": None, "chosen_by": "sweep_l2"}
    number = Choice(1, 30, 3, "sweep", "")
    assert (number.setting, number.numbers) == (Setting(1, 30), {"alpha": 1, "beta": 30})
    assert number.values == {"alpha": 1, "beta": 30, "chosen_by": "sweep"}


def test_a_choice_is_read_from_where_it_is_stated(own_artefacts: Project) -> None:
    with own_artefacts.open("sweep", "retrained") as given:
        assert Choice.by_sweep(given, 3.0) == Choice(1, 2, 3, "sweep", "validation prefers α = 1, β = 2")
        assert Choice.of_retrained(given) == Choice.by_params(1, 2, 0)
        assert Choice.by_params(1, 2, 3).reason == "set in params.yaml: α = 1, β = 2"
    made_up.prefer_erm(own_artefacts)
    with own_artefacts.open("retrained") as given:
        found = Choice.of_retrained(given)
    assert (found.setting, found.chosen_by, named(found.setting)) == (None, "sweep", "ERM as it is")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1, 30, "sweep"), "picked by stage sweep: α = 1, β = 30"),
        ((0, 0, "params"), "set in params.yaml: α = β = 0 (plain last-layer retraining)"),
        ((None, None, "sweep"), "picked by stage sweep: ERM as it is"),
        ((1, 30, "sweep_l2", 3), "picked by stage sweep: α = 1, β = 30, l2 = 3"),
    ],
)
def test_what_metrics_json_has_is_said(values: tuple[Any, ...], words: str) -> None:
    assert said(dict(zip(("alpha", "beta", "chosen_by", "l2"), values, strict=False))) == words


def test_a_sweep_that_does_not_say_why_is_refused(own_artefacts: Project) -> None:
    file = own_artefacts.path("sweep") / "metrics.json"
    file.write_text(file.read_text().replace('"reason"', '"other"'))
    message = r"sweep/metrics.json: damaged \(does not state reason\); run 'mac sweep'$"
    with pytest.raises(MacError, match=message), own_artefacts.open("sweep"):
        pass


def test_a_sweep_that_had_no_l2_to_pick_is_refused_where_l2_is_auto(own_artefacts: Project) -> None:
    with (
        own_artefacts.open("sweep") as given,
        pytest.raises(MacError, match="sweep: metrics.json does not state l2; run 'mac sweep'$"),
    ):
        Choice.by_sweep(given, "auto")


@pytest.mark.parametrize("value", ["much", True, [1], -1, float("nan"), {}])
def test_a_setting_that_is_no_number_is_refused(own_artefacts: Project, value: object) -> None:
    restate(own_artefacts.path("retrained"), lambda about: about["params"].update(beta=value))
    with own_artefacts.open("retrained") as given, pytest.raises(MacError, match=r"beta.*run 'mac retrain'"):
        Choice.of_retrained(given)
    file = own_artefacts.path("sweep") / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "alpha": value}))
    with (
        pytest.raises(MacError, match=r"sweep/metrics.json: .*alpha.*run 'mac sweep'"),
        own_artefacts.open("sweep"),
    ):
        pass
