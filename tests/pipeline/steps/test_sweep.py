import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pipeline.params.selection import Criterion, SelectionParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Project
from pipeline.results.choice import OF_GROUP
from pipeline.results.diagnosis import diagnose
from pipeline.results.scores import head_scores
from pipeline.selection import SPOKEN
from pipeline.steps.retrain import RetrainParams, retrain
from pipeline.steps.sweep import sweep
from tests import cached, made_up
from tests.cached import AUTO, fit_params

ALPHAS, BETAS = [0, 1, 2], [0, 1, 2, 4]


Rows = list[dict[str, Any]]


def read(file: Path) -> Rows:
    """The rows of a table; None for an empty cell."""
    rows = []
    for row in csv.DictReader(file.read_text().splitlines()):
        rows.append({name: float(value) if value else None for name, value in row.items()})
    return rows


def run(
    project: Project,
    alphas: list[float],
    betas: list[float],
    selection: SelectionParams = AUTO,
    pick: Literal["auto", "criterion", "diagnosis"] = "auto",
    **fit: object,
) -> dict[str, Any]:
    """Run the sweep with two seeds; return metrics.json. The diagnosis can pick (1, 2)."""
    params = SweepParams(
        alphas=alphas, betas=betas, pick=pick, default=(1, 2), l2s=[0, 0.1], seeds=2, average=1
    )
    with project.open("images", "erm", "masks", "features") as given:
        models = (params, fit_params(**fit), selection)
        sweep(given, project.path("sweep"), *models, cached.context(project.data))
    found: dict[str, Any] = json.loads((project.path("sweep") / "metrics.json").read_text())
    return found


@pytest.fixture
def swept(tmp_path: Path) -> Project:
    project = cached.write(tmp_path)
    run(project, ALPHAS, BETAS, seeds=7, average=5)  # the sweep has its own
    return project


def test_a_sweep_is_every_setting_fitted_alone(swept: Project) -> None:
    rows = {(row["alpha"], row["beta"], row["seed"]): row for row in read(swept.path("sweep") / "seeds.csv")}
    assert len(rows) == 1 + len(ALPHAS) * len(BETAS) * 2
    for alpha, beta in ((0, 4), (2, 1)):
        params = RetrainParams(**fit_params().model_dump(), alpha=alpha, beta=beta)
        with swept.open("erm", "features") as given:
            retrain(given, swept.path("retrained"), params, AUTO, cached.context(swept.data))
        with swept.open("images", "features", "retrained") as given:
            heads = given.model("retrained").heads()
            for seed in (0, 1):
                for split in ("val", "test"):
                    told = head_scores(given, heads[seed], split)
                    row = rows[alpha, beta, seed]
                    # A batched fit rounds otherwise; one image of the smallest group may change its side.
                    assert row[f"{split}_worst"] == pytest.approx(told["worst_group"]["mean"], abs=0.1)
                    assert row[f"{split}_mean"] == pytest.approx(told["raw_mean"]["mean"], abs=0.02)


def test_validation_picks_from_the_means_over_the_seeds(swept: Project) -> None:
    means, seeds = read(swept.path("sweep") / "mean.csv"), read(swept.path("sweep") / "seeds.csv")
    for row in means:
        same = [each for each in seeds if (each["alpha"], each["beta"]) == (row["alpha"], row["beta"])]
        for name in ("val_worst", "val_mean", "test_worst", "test_mean"):
            assert row[name] == pytest.approx(np.mean([each[name] for each in same]))
    (picked,) = (row for row in means if row["picked"] == 1)
    best = max(means, key=lambda row: (row["val_worst"], row["val_mean"]))  # of equal ones the first
    assert picked == best


def test_erm_as_it_is_is_a_candidate(swept: Project) -> None:
    means, seeds = read(swept.path("sweep") / "mean.csv"), read(swept.path("sweep") / "seeds.csv")
    with swept.open("images", "erm", "features", "sweep") as given:
        told = {split: head_scores(given, given.model("erm").head(), split) for split in ("val", "test")}
        erm = given.table("sweep").values["erm"]
    for row in (means[0], seeds[0], erm):
        for split, found in told.items():
            assert row[f"{split}_worst"] == pytest.approx(found["worst_group"]["mean"])
            assert row[f"{split}_mean"] == pytest.approx(found["raw_mean"]["mean"])
    by_group = read(swept.path("sweep") / "groups.csv")
    of_groups = {name: by_group[0][f"{OF_GROUP}{name}"] for name in told["test"]["groups"]}
    assert of_groups == pytest.approx({name: row["mean"] for name, row in told["test"]["groups"].items()})
    for row, each in zip(means, by_group, strict=True):
        assert (row["alpha"], row["beta"]) == (each["alpha"], each["beta"])
        # The mean over seeds of the worst group is at most that of any group.
        assert row["test_worst"] <= min(each[f"{OF_GROUP}{name}"] for name in of_groups) + 1e-9
    assert [(row["alpha"], row["beta"]) for row in means[:2]] == [(None, None), (0, 0)]
    assert [row["alpha"] for row in seeds].count(None) == 1


SIGNS = {"erm": -1, "original": -1, "masked": -1, "combined": -1}
ERM = (
    "ERM as it is: validation prefers no retraining (worst group / mean 100.0 / 100.0 %; "
    "with the best α and β, α = β = 0 (plain last-layer retraining), {0} / {0} %)"
)
SETTING = "validation (worst group) prefers {} by 100.0 points over ERM as it is"
PLAIN = SETTING.format("α = β = 0 (plain last-layer retraining)")


@pytest.mark.parametrize(
    ("right", "setting", "reason"),
    [
        (["erm"], (None, None), ERM.format("0.0")),
        # All alike: the simplest one.
        (["erm", "original", "masked", "combined"], (None, None), ERM.format("100.0")),
        (["original", "masked", "combined"], (0, 0), PLAIN),
        (["original"], (0, 0), PLAIN),
        (["combined"], (2, 9), SETTING.format("α = 2, β = 9")),
    ],
)
def test_it_picks_erm_or_plain_retraining_or_a_pair(
    tmp_path: Path, right: list[str], setting: tuple[float | None, float | None], reason: str
) -> None:
    project = cached.write_signed(tmp_path, **(SIGNS | dict.fromkeys(right, 1)))
    found = run(project, [2], [9], lr=0.2)  # (0, 0) is not in the lists
    assert (found["alpha"], found["beta"]) == setting
    assert found["picked"] == ("erm" if setting == (None, None) else "setting")
    assert found["reason"] == reason
    assert (found["val_worst"], found["erm"]["val_worst"]) == (1, float("erm" in right))
    assert found["plain"]["val_worst"] == float("original" in right)
    means = read(project.path("sweep") / "mean.csv")
    assert [(row["alpha"], row["beta"]) for row in means] == [(None, None), (0, 0), (2, 9)]
    assert [(row["alpha"], row["beta"]) for row in means if row["picked"]] == [setting]


OTHERS: tuple[Criterion, ...] = ("soft_errors", "error_groups", "eiil", "worst_class")


def measured(project: Project, criterion: Criterion) -> tuple[dict[str, Any], str]:
    """metrics.json of a sweep whose heads flip a coin, and the verdict of the diagnosis."""
    found = run(project, [2], [9], SelectionParams(criterion=criterion), "criterion", lr=1.0, init="zeros")
    with project.open("images", "erm", "masks", "features") as given:
        return found, diagnose(given)["verdict"]


@pytest.mark.parametrize("criterion", OTHERS)
def test_where_the_assumption_fails_no_coin_takes_the_place_of_erm(
    tmp_path: Path, criterion: Criterion
) -> None:
    found, verdict = measured(cached.write_of_noise(tmp_path, core=1), criterion)
    assert verdict == "fails"
    assert (found["picked"], found["alpha"], found["criterion"]) == ("erm", None, criterion)
    assert found["reason"] == (
        "ERM as it is: the diagnosis says that the method's assumption fails here "
        f"({criterion} cannot judge ERM itself)"
    )
    assert found["test_mean"] > 0.85
    assert found["plain"]["test_mean"] < 0.7
    if criterion == "worst_class":
        assert found["plain"]["val_worst"] < found["val_worst"]
    else:  # by what ERM gets wrong, the coin is better
        assert found["plain"]["val_worst"] > found["val_worst"]


@pytest.mark.parametrize("criterion", OTHERS)
def test_elsewhere_a_pair_is_picked_whatever_erm_s_own_score(tmp_path: Path, criterion: Criterion) -> None:
    found, verdict = measured(cached.write_of_noise(tmp_path, core=0), criterion)
    assert verdict != "fails"
    assert found["picked"] == "setting"
    assert (found["erm"]["val_worst"] > found["val_worst"]) == (criterion == "worst_class")
    assert found["reason"].startswith(f"validation ({SPOKEN[criterion]}) prefers α = ")
    assert found["reason"].endswith("; it cannot judge ERM itself")
    pairs = read(tmp_path / "sweep" / "mean.csv")[1:]
    best = max(pairs, key=lambda row: (row["val_worst"], row["val_mean"]))
    assert (found["alpha"], found["beta"]) == (best["alpha"], best["beta"])


@pytest.mark.parametrize(
    ("core", "swayed", "said", "pair"),
    [
        (1, 0, "the method's assumption fails here", (None, None)),
        (0, 0, "does not show that ERM depends on the background", (0, 0)),
        (0, 20, "says that ERM depends on the background", (1, 2)),
    ],
)
@pytest.mark.parametrize(("criterion", "pick"), [("soft_errors", "auto"), ("groups", "diagnosis")])
def test_the_diagnosis_picks(
    tmp_path: Path,
    core: int,
    swayed: int,
    said: str,
    pair: tuple[float | None, float | None],
    criterion: Criterion,
    pick: Literal["auto", "diagnosis"],
) -> None:
    project = cached.write_of_noise(tmp_path, core=core, swayed=swayed)
    found = run(project, [2], [9], SelectionParams(criterion=criterion), pick)
    assert (found["picked_by"], found["alpha"], found["beta"]) == ("diagnosis", *pair)
    assert said in found["reason"]
    # The default pair is tried, though it is not in the lists.
    pairs = [(row["alpha"], row["beta"]) for row in read(tmp_path / "sweep" / "mean.csv")]
    assert pairs == [(None, None), (0, 0), (2, 9), (1, 2)]


def test_groups_compare_erm_itself_whatever_the_diagnosis(tmp_path: Path) -> None:
    found, verdict = measured(cached.write_of_noise(tmp_path, core=1), "groups")
    assert verdict == "fails"
    assert (found["picked"], found["erm"]["val_worst"]) == ("setting", 0)
    assert found["reason"].endswith("points over ERM as it is")
    assert "diagnosis" not in found["reason"]


def test_the_folder_says_what_was_picked_and_what_it_was_made_from(swept: Project) -> None:
    (picked,) = (row for row in read(swept.path("sweep") / "mean.csv") if row["picked"] == 1)
    with swept.open("erm", "features", "sweep") as given:
        values = dict(given.table("sweep").values)
        assert values.pop("made_from") == given.digests("features", "erm")
    assert values.pop("criterion") == "groups"
    assert {name: values.pop(name) for name in picked} == {**picked, "picked": "setting"}
    assert values.pop("picked_by") == "criterion"
    assert set(values) == {"erm", "plain", "reason"}
    files = {"seeds.csv", "mean.csv", "groups.csv", "metrics.json"}
    assert {file.name for file in swept.path("sweep").iterdir()} == files


def test_no_name_is_in_the_file_that_dvc_draws(tmp_path: Path) -> None:
    """DVC puts every column of it into the script of its page as it is."""
    name = "</script><script>"
    project = made_up.write(tmp_path, spec=replace(made_up.SPEC, classes=(name, "b"), attributes=()))
    run(project, [1], [2])
    drawn, named = ((project.path("sweep") / file).read_text() for file in ("mean.csv", "groups.csv"))
    assert "<" not in drawn
    assert named.splitlines()[0] == f"alpha,beta,{OF_GROUP}{name},{OF_GROUP}b"
    assert len(named.splitlines()) == len(drawn.splitlines()) > 2


def test_where_l2_is_auto_every_pair_has_every_l2_and_one_is_picked(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    found = run(project, [1], [0, 2], lr=0.1, l2="auto")
    means = read(project.path("sweep") / "mean.csv")
    tried = [(None, None, None)]
    for pair in ((0, 0), (1, 0), (1, 2)):
        tried += [(*pair, 0), (*pair, 0.1)]
    assert [(row["alpha"], row["beta"], row["l2"]) for row in means] == tried
    (picked,) = (row for row in means if row["picked"])
    assert picked == max(means, key=lambda row: (row["val_worst"], row["val_mean"]))
    assert {name: found[name] for name in ("alpha", "beta", "l2")} == {
        name: picked[name] for name in ("alpha", "beta", "l2")
    }
    assert f"l2 = {picked['l2']:g}" in found["reason"]
    assert found["plain"]["val_worst"] == max(row["val_worst"] for row in means[1:3])
    for l2 in (0, 0.1):  # each alone
        run(project, [1], [0, 2], lr=0.1, l2=l2)
        alone = read(project.path("sweep") / "mean.csv")
        assert "l2" not in alone[0]
        together = [row for row in means if row["l2"] in (None, l2)]
        for one, other in zip(alone, together, strict=True):
            assert one["val_mean"] == pytest.approx(other["val_mean"], abs=0.02)
