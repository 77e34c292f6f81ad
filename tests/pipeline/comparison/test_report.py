"""The page with what the second pipeline found."""

import json
from pathlib import Path

import pytest

from pipeline import graph, store
from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.params.examples import ExamplesParams
from pipeline.project import Project
from pipeline.steps.examples import examples
from pipeline.steps.report import report
from tests import made_up
from tests.page import Page


@pytest.fixture
def compared(tmp_path: Path) -> Project:
    """A made-up project with all that a comparison needs."""
    project = made_up.write(tmp_path)
    made_up.write_compared(project)
    with project.open(*graph.stage("examples").needs) as given:
        params = ExamplesParams(training=1, mistakes=1, seed=0)
        examples(given, project.path("examples"), params, Context("cpu", tmp_path))
    return project


def write(project: Project, name: str) -> str:
    stage = graph.stage(name)
    out = project.path(stage.makes[0].name)
    with project.open(*stage.needs) as given:
        report(given, out, Context("cpu", project.data))
    return Page(out.read_text()).text


def test_the_report_shows_them_all(compared: Project) -> None:
    text = write(compared, "comparison_report")
    for words in ("JTT", "the paper of MaskTune", "Is it the masks?", "xgradcam (MaC)", "true masks"):
        assert words in text
    page = Page(compared.path("comparison_report").read_text())
    said = "true masks − xgradcam (MaC): +10.0 (-10.0 to +30.0)"
    assert any(said in str(figure["aria-label"]) for figure in page.all("svg"))
    assert "dvc repro data/comparison" not in text


def test_its_verdict_takes_whole_networks_into_account(compared: Project) -> None:
    """JTT is the best other method of the comparison; on the other page, it is LLR."""
    for name, best in (("jtt", 0.9), ("baselines", 0.8)):
        file = compared.path(name) / "metrics.json"
        found = json.loads(file.read_text())
        row = found["methods"]["llr"] if name == "baselines" else found
        row["test"]["worst_group"]["mean"] = best
        file.write_text(json.dumps(found))
    for name, title, kind in (
        ("comparison_report", "JTT", "method"),
        ("report", "plain last-layer retraining (LLR)", "last-layer method"),
    ):
        assert f"{title}, the best other {kind} that sees no more group labels" in " ".join(
            write(compared, name).split()
        )


def test_answers_of_other_images_are_refused(compared: Project) -> None:
    with compared.open("images", "erm", "jtt") as given:
        erm, made_from, seen = (
            given.model("erm"),
            given.digests("images", "erm"),
            given.model("jtt").read("answers"),
        )
    jtt = compared.path("jtt")
    row = (jtt / "metrics.json").read_text()
    with store.create_folder(jtt) as out:
        fewer = {"test": seen["test"][:, 1:]}
        store.write_model(out, "jtt", erm.read(), erm.spec, {}, made_from, answers=fewer)
        (out / "metrics.json").write_text(row)
    with pytest.raises(
        MacError, match="jtt: its answers are not those of 12 test images; run 'mac jtt' again"
    ):
        write(compared, "comparison_report")


def test_the_other_one_says_how_to_get_them(compared: Project) -> None:
    text = write(compared, "report")
    assert "dvc repro data/comparison/dvc.yaml" in text
    assert "Is it the masks?" not in text
    assert "JTT" in text  # in that sentence alone
    assert "the paper of JTT" not in text


def test_what_is_missing_is_named(compared: Project) -> None:
    (compared.path("ablation") / "metrics.json").unlink()
    with pytest.raises(MacError, match="ablation/metrics.json: no such file; run 'mac ablation'"):
        write(compared, "comparison_report")
    for file in compared.path("jtt").iterdir():
        file.unlink()
    with pytest.raises(MacError, match="jtt/model.json: no such file; run 'mac jtt'"):
        write(compared, "comparison_report")
    assert not compared.path("comparison_report").exists()
