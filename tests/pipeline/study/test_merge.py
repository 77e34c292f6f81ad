"""Stage study on runs that were made up: what it says is what numpy and scipy say of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pipeline import graph
from pipeline.errors import MacError
from pipeline.params.block import Block
from pipeline.params.features import FeaturesParams
from pipeline.params.inputs import InputParams
from pipeline.params.masks import MasksParams
from pipeline.params.model import ModelParams
from pipeline.params.saliency import SaliencyParams
from pipeline.params.study import StudyParams, of_every_run
from pipeline.project import Project
from pipeline.study.merge import study
from pipeline.tools.inspection import describe
from tests import cached
from tests.conftest import default_params, restate
from tests.page import Page
from tests.runs import GROUP, LABEL, METHODS, write_run

PARAMS = StudyParams(seeds=[0, 1, 2, 3], variants={"base": {}}, threads=1)


def of(model: type[Block]) -> Block:
    """A block of the usual parameters."""
    values = default_params()[model.block]
    return model.model_validate({key: values[key] for key in model.model_fields})


BLOCKS = [of(model) for model in (ModelParams, InputParams, FeaturesParams, SaliencyParams, MasksParams)]
MADE = [PARAMS, *BLOCKS]  # the parameters of a run


def test_where_a_run_had_its_features_does_not_count() -> None:
    made = [of_every_run([cached.fit_params(memory=each)]) for each in ("resident", "streamed")]
    assert made[0] == made[1]
    assert "lr" in made[0]["retrain"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four runs; the last one has no LLR."""
    found = graph.project(tmp_path)
    for seed in PARAMS.seeds:
        write_run(found, seed, MADE, without="llr" if seed == 3 else "")
    return found


def merged(project: Project, params: StudyParams = PARAMS) -> str:
    with project.open() as given:
        outs = [project.path(name) for name in ("study", "study_table", "study_figure")]
        said: str = study(given, *outs, params, *BLOCKS, cached.context(project.data))
        return said


def worst(project: Project, seed: int, name: str) -> float:
    """The mean of the heads' worst-group accuracies, from the answers."""
    with graph.project(project.data, run=project.path("run") / "base" / str(seed)).open("run") as given:
        right = given.model("run").read("answers")[name] == LABEL
    return float(np.mean([min(head[g == GROUP].mean() for g in range(4)) for head in right]))


def test_it_says_what_scipy_says_of_the_answers(project: Project) -> None:
    said = merged(project)
    base = json.loads(project.path("study").read_text())["variants"]["base"]
    mac, erm = (np.array([worst(project, s, name) for s in PARAMS.seeds]) for name in ("mac", "erm"))
    found = base["methods"]["mac"]["worst_group"]
    assert found["runs"] == pytest.approx(mac.tolist())
    assert (found["mean"], found["std"]) == pytest.approx((mac.mean(), mac.std(ddof=1)))
    assert (found["lowest"], found["highest"]) == pytest.approx((mac.min(), mac.max()))
    names = [(row["of"], row["than"]) for row in base["differences"]]
    assert names == [("mac", "erm"), ("mac", "dfr"), ("masks_own", "masks_random")]
    first = base["differences"][0]
    test = stats.ttest_rel(mac, erm)
    assert first["t_p"] == pytest.approx(test.pvalue)
    ps = [row["t_p"] for row in base["differences"]]
    assert first["t_p_holm"] == pytest.approx(first["t_p"] * (3 - sorted(ps).index(first["t_p"])))
    assert first["low"] < first["mean"] < first["high"]
    assert base["not_in_all"] == {"llr": {"title": "LLR", "runs": 3, "reasons": ["too few"]}}
    assert "LLR: in 3 of 4 runs, so not compared (too few)" in said
    assert "α = 2, β = 2 in 3 of 4; picked by stage sweep: ERM as it is in 1 of 4; selection.crit" in said
    assert "On the worst group MaC is better than ERM" in said
    assert "over 4 ERM runs" in said
    assert "nothing speaks against the method's assumption in 4 of 4" in said
    assert "ERM was stopped early in 1 of 4" in said
    assert describe(project.path("study")) == said
    of_run = describe(project.path("run") / "base" / "3" / "metrics.json")
    assert of_run.startswith("base, seed 3\n")
    assert "LLR is left out: too few" in of_run


def test_every_variant_is_compared_over_its_own_runs(project: Project) -> None:
    for seed in (0, 2):
        write_run(project, seed, MADE, variant="k20", changes={"saliency.top_k": 0.2})
    changes = {"base": {}, "k20": {"saliency.top_k": 0.2}}
    said = merged(project, StudyParams(seeds=[0, 2], variants=changes, threads=1))
    assert "base: 2 ERM runs, seeds 0, 2" in said
    assert "k20 (saliency.top_k: 0.2): 2 ERM runs, seeds 0, 2" in said
    found = json.loads(project.path("study").read_text())["variants"]
    assert found["base"]["methods"] == found["k20"]["methods"]  # their answers are those of the same seeds


def test_the_table_of_runs_and_the_figure_have_every_run(project: Project) -> None:
    merged(project)
    lines = list(csv.DictReader(project.path("study_table").read_text().splitlines()))
    assert len(lines) == 4 * len(METHODS) - 1
    (line,) = (row for row in lines if (row["seed"], row["method"]) == ("2", "mac"))
    assert float(line["test_worst_group"]) == pytest.approx(worst(project, 2, "mac"))
    page = Page(project.path("study_figure").read_text())
    assert "base: 4 ERM runs" in page.text
    assert "random masks" in page.text


def test_one_run_has_no_interval_over_runs_and_says_so(project: Project) -> None:
    said = merged(project, PARAMS.model_copy(update={"seeds": [0]}))
    assert "95 %: over 80 test images, for this ERM run; nothing is said of other runs" in said
    assert "another run may differ" not in said
    assert "nan" not in said.lower()
    assert "NaN" not in project.path("study").read_text()
    row = json.loads(project.path("study").read_text())["variants"]["base"]["differences"][0]
    assert row["t_p"] is row["std"] is row["runs_needed"] is None
    assert row["low"] < row["mean"] < row["high"]


def test_a_run_that_is_missing_or_of_something_else_is_one_line(project: Project) -> None:
    path = project.path("run") / "base"
    with pytest.raises(MacError, match=r"base/7/model.json: .*run 'mac study-run --variant base --seed 7'"):
        merged(project, PARAMS.model_copy(update={"seeds": [0, 7]}))
    with pytest.raises(MacError, match=r"base/0: was made with other saliency.top_k \(.*\(0.2\)"):
        merged(project, PARAMS.model_copy(update={"variants": {"base": {"saliency.top_k": 0.2}}}))
    with pytest.raises(MacError, match=r"base/0: was made with other dataset.name \(nothing\) than"):
        merged(project, PARAMS.model_copy(update={"variants": {"base": {"dataset.name": "folder"}}}))
    write_run(project, 3, MADE, others={"features.draws": 9})
    with pytest.raises(MacError, match=r"base/3: was made with other features.draws \(9\) than params"):
        merged(project)
    write_run(project, 3, MADE, others={"study.threads": 2})
    with pytest.raises(MacError, match=r"base/3: was made with other study.threads \(2\) than params.*\(1\)"):
        merged(project)
    write_run(project, 3, MADE)
    (path / "3").rename(path / "7")
    with pytest.raises(MacError, match="base/7: is the run of variant base, seed 3; run 'mac study-run"):
        merged(project, PARAMS.model_copy(update={"seeds": [7]}))


def test_runs_of_other_images_are_refused_unless_they_are_their_own(project: Project, tmp_path: Path) -> None:
    cached.write(tmp_path)  # images.h5, which no run was made from
    first = project.path("run") / "base" / "0"
    one = PARAMS.model_copy(update={"seeds": [0]})
    restate(first, lambda about: about.update(made_from={"images": "0" * 64}))
    with pytest.raises(MacError, match="base/0: was made from other images"):
        merged(project, one)
    restate(first, lambda about: about.update(made_from={"its own images": "0" * 64}))
    assert merged(project, one)
    with pytest.raises(MacError, match="base/1: was made from other images or files than .*base/0"):
        merged(project, PARAMS.model_copy(update={"seeds": [0, 1]}))
