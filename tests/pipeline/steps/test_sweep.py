import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.params.sweep import SweepParams
from pipeline.project import Project
from pipeline.results.scores import head_scores
from pipeline.steps.retrain import RetrainParams, retrain
from pipeline.steps.sweep import sweep
from tests import cached
from tests.cached import fit_params

ALPHAS, BETAS = [0, 1, 2], [0, 1, 2, 4]


def read(file: Path) -> list[dict[str, float]]:
    rows = list(csv.DictReader(file.read_text().splitlines()))
    return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.fixture
def swept(tmp_path: Path) -> Project:
    project = cached.write(tmp_path)
    with project.open("erm", "features") as given:
        params = SweepParams(alphas=ALPHAS, betas=BETAS)
        sweep(given, project.path("sweep"), params, fit_params(), cached.AUTO, cached.context(tmp_path))
    return project


def test_a_sweep_is_every_setting_fitted_alone(swept: Project) -> None:
    rows = {(row["alpha"], row["beta"], row["seed"]): row for row in read(swept.path("sweep") / "seeds.csv")}
    assert len(rows) == len(ALPHAS) * len(BETAS) * 2
    for alpha, beta in ((0, 4), (2, 1)):
        params = RetrainParams(**fit_params().model_dump(), alpha=alpha, beta=beta)
        with swept.open("erm", "features") as given:
            retrain(given, swept.path("retrained"), params, cached.AUTO, cached.context(swept.data))
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


def test_the_folder_says_what_was_picked_and_what_it_was_made_from(swept: Project) -> None:
    (picked,) = (row for row in read(swept.path("sweep") / "mean.csv") if row["picked"] == 1)
    with swept.open("erm", "features", "sweep") as given:
        values = dict(given.table("sweep").values)
        assert values.pop("made_from") == given.digests("features", "erm")
    assert values.pop("criterion") == "groups"
    assert values == picked
    assert {file.name for file in swept.path("sweep").iterdir()} == {"seeds.csv", "mean.csv", "metrics.json"}
    assert json.loads((swept.path("sweep") / "metrics.json").read_text())["picked"] == 1
