"""The page: complete, self-contained, escaped, and alive in a browser."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pipeline import graph, selection, store
from pipeline.compute.context import Context
from pipeline.errors import MacError, printable
from pipeline.params.examples import ExamplesParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.sweep import SweepParams
from pipeline.project import Project
from pipeline.results import diagnosis_table, diagnosis_words
from pipeline.results.choice import NOT_RETRAINED, Choice
from pipeline.results.convergence import whole_diagnosis
from pipeline.results.diagnosis import diagnose
from pipeline.results.evaluation import verdict_of
from pipeline.results.scores import head_scores
from pipeline.results.verdict import more, points
from pipeline.steps.evaluate import measure, whole
from pipeline.steps.examples import examples
from pipeline.steps.report import figures, report, timings
from pipeline.steps.report.charts import COLOURS, ERM, MAC, SERIES, Scale
from pipeline.steps.report.gallery import OUTCOMES, SIDE, encoded, gallery
from pipeline.steps.report.sweep_map import sweep_map
from pipeline.steps.report.trade_offs import TradeOff, trade_offs
from pipeline.steps.retrain import retrain
from pipeline.steps.sweep import sweep
from tests import cached, made_up
from tests.conftest import default_params, restate
from tests.page import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: the page is not opened"
)


def show(project: Project, training: int = 8, mistakes: int = 6) -> None:
    """Make examples.h5 and the page."""
    context = Context("cpu", project.data / "scratch")
    params = ExamplesParams(training=training, mistakes=mistakes, seed=0)
    with project.open(*graph.stage("examples").needs) as given:
        examples(given, project.path("examples"), params, context)
    with project.open(*graph.stage("report").needs) as given:
        report(given, project.path("report"), context)


def drawn(text: str) -> list[str]:
    """What the page's figures show, in words."""
    return [str(figure["aria-label"]) for figure in Page(text).all("svg")]


def text_of(project: Project) -> str:
    return project.path("report").read_text()


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A made-up project with its page; not to be changed."""
    project = made_up.write(tmp_path_factory.mktemp("reported"))
    timed = project.data / "timings"
    timed.mkdir()
    for name in ("examples", "prepare", "jtt", "report"):
        (timed / f"{name}.json").write_text(json.dumps({"seconds": 1.5, "device": "cpu", "cores": 2}))
    show(project)
    return project


def test_the_verdict_and_the_tables_are_the_metrics(reported: Project) -> None:
    with reported.open("images", "erm", "features", "retrained") as given:
        metrics, _ = measure(given)
    text = " ".join(Page(text_of(reported)).text.split())
    for value in (
        metrics["erm"]["test"]["worst_group"],
        metrics["mac"]["test"]["worst_group"]["mean"],
        metrics["mac"]["test"]["auroc"]["mean"],
    ):
        assert f"{100 * value:.1f}" in text
    methods = json.loads((reported.path("baselines") / "metrics.json").read_text())["methods"]
    for method in methods.values():
        assert method["title"] in text
        cells = []
        for key in ("robust_coverage", "auroc", "ece"):
            mean, std = (f"{100 * method['test'][key][name]:.1f}" for name in ("mean", "std"))
            cells.append(f"{mean} ± {std}" if method["seeds"] > 1 else mean)
        row = (*cells, method["sign"], method["labels"])
        assert "".join(row).replace(" ", "") in text.replace(" ", "")
        assert f"{100 * method['test']['raw_mean']['mean']:.1f}" in text
    assert "AFR is left out: train.hold_out is 0." in text
    assert "The sweep: validation prefers α = 1, β = 2 (selection.criterion: groups)." in text
    assert "MaC on this page: set in params.yaml: α = 1, β = 2." in text
    assert "Mask/FG, %" in text
    for word in ("stored_size", "top_k", "torchvision", "made from masks"):
        assert word in text


def test_it_begins_with_the_verdict_and_table_2_has_every_difference(reported: Project) -> None:
    with reported.open(*graph.stage("evaluate").needs) as given:
        metrics, _ = whole(given)
    text = " ".join(Page(text_of(reported)).text.split())
    title, found, _ = text.partition(str(verdict_of(metrics)))
    assert found.startswith("On the worst group MaC is ")
    assert len(title) < 100  # the title of the page alone
    assert "<b>no better than</b>" in text_of(reported).partition("<nav")[0]
    before, after = (metrics[name]["test"]["raw_mean"] for name in ("erm", "mac"))
    assert f"{more(after['mean'] - before)} points" in text.partition("Test images, mean")[2][:80]
    table = text.partition("MaC − method, points")[2].partition("✗ no group labels")[0]
    for row in metrics["compared"].values():
        assert f"{more(row['mean'])}{points(row['low'])} to {points(row['high'])}" in table


def test_the_diagnosis_is_near_the_top(reported: Project) -> None:
    with reported.open("images", "erm", "masks", "features") as given:
        found = whole_diagnosis(given)
    whole = " ".join(Page(text_of(reported)).text.split())
    text = whole.partition("Does the method's assumption hold here?")[2].partition("Accuracy by group")[0]
    assert " ".join(diagnosis_words.said(found)) in text
    for row in diagnosis_table.rows_of(found).values():
        for key in diagnosis_table.VIEWS:
            assert f"{100 * row[key]:.1f}".replace("-", "−") in text
            assert diagnosis_table.ends_of(row, key) in text
    assert diagnosis_table.basis(found) in text
    for line in diagnosis_table.blanks(found):
        assert line in text


def test_nothing_is_fetched_and_every_picture_says_what_it_shows(reported: Project) -> None:
    text = text_of(reported)
    page = Page(text)
    assert len(text) < 5_000_000
    assert not re.search(r"""(src|href|action|url)\s*[=(]\s*["']?\s*(https?:)?//""", text)
    for image in page.all("img"):
        assert (image["src"] or "").startswith("data:image/")
        assert image["alt"]
    cards = page.all("article")
    assert len(cards) == 14
    assert {card["data-split"] for card in cards} == {"train", "test"}
    assert {card["data-outcome"] for card in cards} <= set(OUTCOMES)
    assert all(
        card["data-outcome"] in ("mended", "both wrong") for card in cards if card["data-split"] == "test"
    )


def test_a_card_says_what_the_artefacts_say(reported: Project) -> None:
    with reported.open("images", "erm", "masks", "features", "retrained", "examples") as given:
        cards = gallery(given)
        images, file = given.file("images"), given.file("examples")
        positions = [*file["train/position"][:], *(16 + 8 + file["test/position"][:])]
        for card, row in zip(cards, positions, strict=True):
            assert (card.row, card.path) == (row, f"{row:02}.png")
            assert card.group == given.groups.names[2 * images["label"][row] + images["attribute"][row]]
            phi = given.file("features")[f"{card.split}/original"][:][
                row if card.split == "train" else row - 24
            ]
            seen = [
                int(given.model(name).head().logits(phi[None])[0, 0].argmax())
                for name in ("erm", "retrained")
            ]
            right = [each == images["label"][row] for each in seen]
            expected = {(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}[tuple(right)]
            assert card.outcome == OUTCOMES[expected]


def test_the_curves_are_those_of_the_heads_that_are_shown(reported: Project) -> None:
    with reported.open("images", "erm", "features", "retrained", "baselines") as given:
        baselines = json.loads((reported.path("baselines") / "metrics.json").read_text())["methods"]
        erm, mac, dfr, _ = trade_offs(given, baselines)
        expected = head_scores(given, given.model("retrained").head(), "test")
        third = given.model("baselines").read()["dfr.weight"][2]
        logits = given.file("features")["test/original"][:] @ third.T
        bias = given.model("baselines").read()["dfr.bias"][2]
        right = (logits + bias).argmax(1) == given.file("features")["test/label"][:]
    assert (erm.title, mac.title, dfr.title) == ("ERM", "MaC", "DFR")
    assert mac.coverage == pytest.approx(expected["robust_coverage"]["mean"])
    assert mac.at == pytest.approx([expected["raw_mean"]["mean"], expected["worst_group"]["mean"]])
    assert dfr.at[0] == pytest.approx(right.mean())
    for each in (erm, mac, dfr):
        mean, worst = each.envelope.T
        assert worst[mean >= each.at[0] - 1e-9].max() >= each.at[1] - 1e-9
    assert (
        f"ERM {100 * erm.coverage:.1f}; MaC {100 * mac.coverage:.1f}; DFR"
        in figures.trade_offs([erm, mac, dfr]).alt
    )
    assert any("Robust coverage: ERM" in said for said in drawn(text_of(reported)))


def test_timings_are_in_the_order_of_the_stages(reported: Project) -> None:
    assert list(timings(reported, compared=False)) == ["prepare", "examples"]
    assert list(timings(reported, compared=True)) == ["prepare", "examples", "jtt"]
    table = text_of(reported).partition("<summary>timings</summary>")[2]
    assert 0 < table.index("prepare") < table.index("examples")


def test_a_page_without_examples(tmp_path: Path) -> None:
    project = made_up.write(tmp_path, foregrounds=False)
    show(project, 0, 0)
    text = text_of(project)
    assert "<article" not in text
    assert "No images were asked for." in text
    assert "Where ERM looks" not in text  # no true masks are known


def of_groups(project: Project, accuracies: Mapping[str, list[float]]) -> Path:
    """Let the sweep's settings, in their order, have these accuracies of groups; the file that has them."""
    file = project.path("sweep") / "groups.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    found = []
    for place, row in enumerate(rows):
        found.append({key: row[key] for key in ("alpha", "beta")})
        found[-1] |= {f"test_of_{name}": str(values[place]) for name, values in accuracies.items()}
    store.write_csv(file, found)
    return file


def test_of_many_classes_and_groups_the_worst_are_shown(
    own_artefacts: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_groups(own_artefacts, {"a": [0.5] * 5, "b": [0.4] * 5})
    monkeypatch.setattr(figures, "MOST", 1)
    show(own_artefacts, 0, 0)
    with own_artefacts.open(*graph.stage("evaluate").needs) as given:
        metrics, _ = whole(given)
    erm, mac = metrics["erm"]["test"]["groups"], metrics["mac"]["test"]["groups"]
    worst = min(erm, key=lambda name: min(erm[name], mac[name]["mean"]))
    (bars,) = (said for said in drawn(text_of(own_artefacts)) if said.startswith("Test accuracy by group"))
    assert bars.partition("percent. ")[2].startswith(f"{worst}: ERM {100 * erm[worst]:.1f}")
    assert bars.count("MaC") == 1
    text = " ".join(Page(text_of(own_artefacts)).text.split())
    assert "The 1 of 4 groups in which ERM or MaC is the worst." in text
    groups = text.partition("all 4 groups")[2].partition("What else could be done")[0]
    assert all(name in groups for name in erm)  # in a part that opens
    assert "all 2 classes" in text
    assert "true class ↓" not in text
    said = "these are the worst of any setting, or nearest to it. The other 1 are in data/sweep/groups.csv."
    assert f"Of 4 groups, {said}" in text
    assert "test: b" in text
    assert "test: a" not in text


def test_the_lowest_and_the_classes_that_are_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST", 2)
    assert figures.lowest([0.9, np.nan, 0.3, 0.8], [0.9, np.nan, 0.9, 0.1]) == [2, 3]
    assert figures.lowest([np.nan, 0.5], [0.4, np.nan]) == [0, 1]
    pairs = [("a", "a"), ("a", "b"), ("c", "b"), ("c", "b"), ("c", "a"), ("c", "c"), ("b", "b")]
    assert figures.confusion(pairs, ["a", "b", "c"]).often == [("c", "b", 2, 4), ("a", "b", 1, 2)]
    assert figures.confusion([("a", "a")], ["a", "b", "c"]).often == []


def test_a_page_of_erm_as_it_is(own_artefacts: Project) -> None:
    made_up.prefer_erm(own_artefacts)
    show(own_artefacts, 2, 2)
    text = " ".join(Page(text_of(own_artefacts)).text.split())
    assert "MaC keeps ERM's head as it is here. On the worst group MaC is no better than ERM (" in text
    assert f"MaC: {NOT_RETRAINED}; one head." in text
    assert f"MaC on this page: {NOT_RETRAINED}." in text
    assert "alpha null" not in text
    assert "The sweep picks ERM as it is: 50.0 percent on validation" in text
    assert not any("Retraining, validation" in said for said in drawn(text_of(own_artefacts)))


def test_a_page_where_l2_was_picked(own_artefacts: Project) -> None:
    fit, where = (
        cached.fit_params(solver="lbfgs", l2="auto", standardize=True),
        cached.context(own_artefacts.data),
    )
    grid = SweepParams(
        alphas=[0], betas=[0, 2], pick="auto", default=(0, 2), l2s=[0.01, 0.1], seeds=1, average=1
    )
    auto = RetrainParams(**fit.model_dump(), alpha="auto", beta="auto")
    with own_artefacts.open("images", "erm", "masks", "features") as given:
        sweep(given, own_artefacts.path("sweep"), grid, fit, cached.AUTO, where)
    with own_artefacts.open("erm", "features", "sweep") as given:
        retrain(given, own_artefacts.path("retrained"), auto, cached.AUTO, where)
        l2 = given.table("sweep").values["l2"]
    show(own_artefacts, 2, 2)
    page = Page(text_of(own_artefacts))
    assert "Every α and β at the l2 that was picked" in page.text
    assert f", l2 = {l2:g}" in page.text.partition("MaC on this page:")[2]
    assert f"every alpha and beta, l2 = {l2:g}; on" in page.text


def test_a_verdict_that_fails_is_said_at_the_top(
    own_artefacts: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.steps.evaluate.diagnose", lambda given: diagnose(given) | {"verdict": "fails"}
    )
    show(own_artefacts, 2, 2)
    top = html.unescape(text_of(own_artefacts).partition("<nav")[0])
    assert "<b>By the diagnosis, the method's assumption fails here" in top


def test_where_rows_weigh_the_page_says_so(tmp_path: Path) -> None:
    project = made_up.write(tmp_path, spec=replace(made_up.SPEC, attributes=()))
    show(project, 2, 2)
    text = " ".join(Page(text_of(project)).text.split())
    for name in (selection.SPOKEN["soft_errors"], "weighted mean"):
        assert f"validation: {name}" in text


def test_artefacts_that_do_not_belong_together_are_refused(reported: Project, tmp_path: Path) -> None:
    shutil.copytree(reported.data, tmp_path / "data")
    project = graph.project(tmp_path / "data")
    before = text_of(project)
    model = project.path("baselines") / "model.json"
    sealed = model.read_text()
    restate(model.parent, lambda about: about.update(made_from={"features": "0" * 64}))
    message = "baselines: was made from other features .* run 'mac baselines' again"
    with pytest.raises(MacError, match=message):
        show(project)
    model.write_text(sealed)
    (project.path("baselines") / "metrics.json").unlink()
    with pytest.raises(MacError, match=r"metrics.json: no such file; run 'mac baselines'"):
        show(project)
    model.unlink()
    with pytest.raises(MacError, match="model.json: no such file; run 'mac baselines'"):
        show(project)
    assert text_of(project) == before


def test_the_page_needs_no_torch(reported: Project, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.steps.report import report
with graph.project(Path({str(reported.data)!r})).open(*graph.stage("report").needs) as given:
    report(given, Path({str(tmp_path / "report.html")!r}), Context("cpu", Path()))
print([name for name in ("torch", "dask", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "report.html").read_text() == text_of(reported)


NASTY = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "鳥 $x_1$ été",
    "a\x1b[31mb\u202ec",
    "</script><svg>",
)
SHOWN = (*NASTY[:3], "a\\x1b[31mb\\u202ec", NASTY[4])


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A dataset whose classes and files have the names that break pages."""
    project = made_up.write(
        tmp_path_factory.mktemp("nasty"),
        spec=replace(made_up.SPEC, classes=NASTY, attributes=()),
        file_name="<img src=x onerror=alert({})>.png",
    )
    show(project)
    return project


def test_names_of_files_and_classes_are_escaped(nasty: Project) -> None:
    text = text_of(nasty)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "<img src=x" not in text
    assert printable(text, kept="\n\t") == text
    for name in SHOWN:
        assert html.escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text
        assert name in page.text
    assert "worst class" in page.text


def test_figures_take_any_name() -> None:
    groups = ["$\\frac{", "</text><script>", "鳥", "a\x1b[31mb\u202ec", "&lt;", "_^{", "a\tb"]
    count = len(groups)
    drawing = figures.group_bars(groups, [0.5] * count, [{"mean": 0.6, "std": 0.1}] * count)
    assert drawing == figures.group_bars(groups, [0.5] * count, [{"mean": 0.6, "std": 0.1}] * count)
    assert "鳥: ERM 50.0, MaC 60.0" in drawing.alt
    texts = [node.text for node in ElementTree.fromstring(drawing.svg).iter("text")]
    assert {*groups[:3], "a\\x1b[31mb\\u202ec", "&lt;", "_^{"} <= set(texts)


def test_figures_say_in_words_what_they_show() -> None:
    rows: list[dict[str, Any]] = [
        {"alpha": None, "beta": None, "val_worst": 0.5, "val_mean": 0.5, "test_worst": 0.25, "picked": 0}
    ]
    for alpha in (0.0, 1.0):
        for beta in (0.0, 2.0):
            value = (alpha + beta) / 4
            rows.append(
                {
                    "alpha": alpha,
                    "beta": beta,
                    "val_worst": value,
                    "val_mean": value,
                    "test_worst": value / 2,
                    "picked": beta * alpha,
                }
            )
    spoken, mac = figures.Spoken("worst class, doubted rows more", "weighted mean"), Choice.by_params(0, 2, 0)
    said = sweep_map(rows, spoken, "worst class", mac).alt
    assert "on validation: worst class, doubted rows more." in said
    assert "picks alpha 1, beta 2: 75.0 percent on validation, 37.5 on test" in said
    assert "ERM as it is has 50.0 and 25.0" in said
    rows[0]["picked"], rows[-1]["picked"] = 1, 0
    del rows[2]  # not every pair was tried
    assert (
        "picks ERM as it is: 50.0 percent on validation, 25.0 on test"
        in sweep_map(rows, spoken, "worst class", mac).alt
    )
    other = [{**row, "val_worst": row["val_worst"] + 0.1, "picked": 0} for row in rows[1:]]
    with_l2 = [{**row, "l2": 0.3} for row in rows[1:]] + [{**row, "l2": 3.0} for row in other]
    # ERM as it is was picked: the l2 of the best pair is drawn. Else, the l2 of what was picked.
    erm = {**rows[0], "l2": None}
    said = sweep_map([erm, *with_l2], spoken, "worst class", mac).alt
    assert "for every alpha and beta, l2 = 3; on" in said
    with_l2[-4]["picked"], erm["picked"] = 1, 0
    said = sweep_map([erm, *with_l2], spoken, "worst class", mac).alt
    assert "for every alpha and beta, l2 = 0.3; on" in said
    assert "picks alpha 1, beta 2, l2 = 0.3: 75.0 percent" in said
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")]
    assert "a: 1 of 2 right; b: 2 of 2 right" in figures.confusion(pairs, ["a", "b"]).alt
    difference = {"name": "one − other", "mean": 0.1, "low": -0.05, "high": 0.25}
    assert "one − other: +10.0 (-5.0 to +25.0)" in figures.differences([difference]).alt
    history = [{"seed": s, "epoch": e, "val_worst": e / 10, "val_mean": 0.5} for s in (0, 1) for e in (1, 2)]
    assert (
        "the median of 2 fits and where all are. In the last epoch, 2: worst 20.0 percent."
        in figures.retraining_curves(history, spoken).alt
    )
    said = figures.learning_curves(history[:2], spoken).alt
    assert "ERM training, validation by epoch: worst class, doubted rows more, and weighted mean." in said


def test_the_map_marks_what_is_picked_and_what_mac_has() -> None:
    rows: list[dict[str, Any]] = [{"alpha": None, "beta": None, "l2": None, "picked": 0}]
    for l2 in (0.1, 1.0):
        rows += [{"alpha": 0.0, "beta": beta, "l2": l2, "picked": 0} for beta in (0.0, 2.0)]
    for number, row in enumerate(rows):
        row |= dict.fromkeys(("val_worst", "val_mean", "test_worst", "test_mean"), number / 10)
    rows[4]["picked"] = 1
    spoken, erm = figures.Spoken("worst group", "mean"), Choice(None, None, None, "sweep_l2", NOT_RETRAINED)
    for choice, marks in (
        (Choice.by_params(0, 0, 1.0), ["", "†", "*"]),
        (Choice.by_params(0, 2, 1.0), ["", "", "*"]),  # the same as what is picked
        (Choice.by_params(0, 0, 0.1), ["", "", "*"]),  # not at the l2 that is shown
        (Choice.by_params(0, 9, 1.0), ["", "", "*"]),  # not tried
        (erm, ["†", "", "*"]),
    ):
        found = sweep_map(rows, spoken, "worst group", choice)
        assert [found.mark(row) for row in (found.erm, *found.cells[0]) if row] == marks, choice


def test_the_worst_group_of_any_setting_is_drawn_and_mac_s_setting_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figures, "MOST", 2)
    rows: list[dict[str, Any]] = []
    # a is the worst of ERM and of what is picked; b of the setting of MaC alone, where all are better.
    for beta, picked, a, b, c in (
        (None, 0, 0.3, 0.8, 0.35),
        (0.0, 1, 0.3, 0.8, 0.35),
        (2.0, 0, 0.9, 0.7, 0.9),
    ):
        row = dict.fromkeys(("val_worst", "val_mean", "test_worst", "test_mean"), a)
        row |= {"alpha": beta, "beta": beta, "picked": picked}
        rows.append(row | {"test_of_a": a, "test_of_b": b, "test_of_c": c, "test_of_empty": np.nan})
    spoken = figures.Spoken("worst group", "mean")
    found = sweep_map(rows, spoken, "worst group", Choice.by_params(2, 2, 0))
    assert list(found.bars)[4:] == ["test_of_a", "test_of_b"]
    assert found.left_out == 2
    assert found.first is rows[2]
    assert sweep_map(rows, spoken, "worst group", Choice.by_params(9, 9, 0)).first is rows[1]


def test_what_trains_on_group_labels_is_dashed_and_mac_is_on_top() -> None:
    at = np.array([0.9, 0.5])
    methods = [TradeOff(name, name == "DFR", at[None], at) for name in ("ERM", "MaC", "LLR", "DFR")]
    drawing = figures.trade_offs(methods)
    lines = [path.get("class") for path in ElementTree.fromstring(drawing.svg).iter("path")]
    assert lines == ["stroke dashed s1", "stroke  s0", "stroke thick mac", "stroke thick erm"]
    assert [colour for _, colour in drawing.legend] == [ERM, MAC, "s0", "s1"]


def test_curves_are_the_median_and_bands_of_all_fits() -> None:
    history = []
    for seed, worst in enumerate((0.1, 0.3, 0.4, 0.5, 0.9)):
        for epoch in (1, 2):
            history.append({"seed": seed, "epoch": epoch, "val_worst": worst, "val_mean": worst})
    drawing = figures.retraining_curves(history, figures.Spoken("worst group", "mean"))
    outer, inner, median = (
        np.unique(re.findall(r",([\d.]+)", path.get("d", ""))).astype(float)
        for path in ElementTree.fromstring(drawing.svg).iter("path")
    )
    # 10 to 90 % with 3 points around them are 24 to 228 pixels from the top.
    expected = np.interp([10, 90, 30, 50, 40], [7, 93], [228, 24])
    assert np.sort([*outer, *inner, *median]) == pytest.approx(np.sort(expected), abs=0.1)


@pytest.mark.parametrize(
    ("low", "high", "step", "expected"),
    [
        (0, 100, 0, [0, 20, 40, 60, 80, 100]),
        (1, 3, 1, [1, 2, 3]),
        (7, 7, 1, [7]),
        (-1.2, 2, 0, [-1, 0, 1, 2]),
    ],
)
def test_axes_have_round_numbers(low: float, high: float, step: float, expected: list[float]) -> None:
    assert Scale(low, high, 0, 1).ticks(step=step) == pytest.approx(expected)


def test_a_button_has_what_the_sweep_says_of_its_setting(own_artefacts: Project) -> None:
    file = of_groups(own_artefacts, {"<b>": [n / 10 for n in range(5)], "empty": [np.nan] * 5})
    show(own_artefacts, 0, 0)
    text = text_of(own_artefacts)
    buttons = [button for button in Page(text).all("button") if "data-setting" in button]
    values = {button["data-setting"]: button["data-values"] for button in buttons}
    assert len(buttons) == 2 * 4 + 1  # a map of validation and one of test, and ERM
    assert values["ERM as it is"] == "50.0 60.0 40.0 70.0 0.0 -"
    assert values["α 0, β 2"] == "50.0 60.0 40.0 70.0 20.0 -"
    (pressed,) = {button["data-setting"] for button in buttons if button["aria-pressed"] == "true"}
    assert pressed == "α 1, β 2"
    # What is picked is shown without the script; what needs the script is hidden then.
    table = text.partition('<table class="setting">')[2].partition("</table>")[0]
    assert re.findall(r'<td class="mac">(.*?)</td>', table) == values[pressed].replace("-", "–").split()
    assert 'id="setting" aria-live="polite">α 1, β 2</th>' in table
    assert "(scripting: none) { .scripted { display: none" in text
    assert 'class="scripted"' in text.partition("<form")[2].partition(">")[0]
    assert "test: &lt;b&gt;" in text
    file.write_text(file.read_text().replace("nan", "much"))
    with pytest.raises(MacError, match=r"groups.csv: damaged .line 2: test_of_empty: .*; run 'mac sweep'"):
        show(own_artefacts, 0, 0)
    file.write_text("alpha,beta,test_of_a\n,,0.5\n")
    message = r"groups.csv: damaged .its settings are not those of mean.csv.; run 'mac sweep'"
    with pytest.raises(MacError, match=message):
        show(own_artefacts, 0, 0)


def contrast(one: str, other: str) -> float:
    """By WCAG 2.1, of two colours #rrggbb."""
    luminance = []
    for colour in (one, other):
        channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ (0.2126, 0.7152, 0.0722)) + 0.05)
    return max(luminance) / min(luminance)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_told_from_the_paper(dark: bool) -> None:
    colour = {name: pair[dark] for name, pair in COLOURS.items()}
    for name in ("ink", "dim", "accent", "good", "bad"):
        assert contrast(colour[name], colour["paper"]) >= 4.5, name
        assert contrast(colour[name], colour["soft"]) >= 4.5, name
    for name in (ERM, MAC, *SERIES):
        assert contrast(colour[name], colour["paper"]) >= 3, name
    # The deepest cell of a map.
    mixed = [round(0.52 * int(colour["accent"][at : at + 2], 16)) for at in (1, 3, 5)]
    paper = [round(0.48 * int(colour["paper"][at : at + 2], 16)) for at in (1, 3, 5)]
    deepest = "#" + "".join(f"{a + b:02x}" for a, b in zip(mixed, paper, strict=True))
    assert contrast(colour["ink"], deepest) >= 4.5


def test_all_colours_are_the_page_s_own(reported: Project) -> None:
    text = text_of(reported)
    light, dark = re.findall(r":root {(.*?)}", text)
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) - {"depth", "at"} <= set(COLOURS)
    for name, (in_light, in_dark) in COLOURS.items():
        assert f"--{name}: {in_light};" in light
        assert f"--{name}: {in_dark};" in dark
    body = text.partition("<body>")[2].partition("<script>")[0]
    assert not re.search(r"(fill|stroke|color|background)[=:]", body)  # no figure has a colour of its own
    for drawing in re.findall(r"<svg.*?</svg>", body, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_headings_tables_and_links_are_in_order(reported: Project) -> None:
    page = Page(text_of(reported))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    names = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    assert {str(link["href"]) for link in page.all("a")} <= {f"#{name}" for name in names}
    pictures = [image for image in page.all("img") if image.get("width")]
    assert len(pictures) == 8 * 5 + 6 * 3 == len(page.all("a")) - len(page.all("section"))


def test_a_page_with_all_its_pictures_stays_below_5_mb(reported: Project) -> None:
    """As many pictures as params.yaml asks for, each with more detail than a photo."""
    text = text_of(reported)
    pictures = re.findall(r"data:image/jpeg[^\"]*", text)
    rest = len(text) - sum(map(len, pictures))
    wanted = default_params()["examples"]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
    photo = np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    number = 5 * wanted["training"] + 3 * wanted["mistakes"]
    assert rest < 200_000
    assert rest + number * len(encoded(photo)) < 5_000_000


SCRIPT = """
<script>
const result = {};
const visible = () => cards.filter((card) => !card.hidden);
const choose = (id, value) => {
  const s = document.getElementById(id);
  s.value = value;
  s.dispatchEvent(new Event("change"));
};
result.all = visible().length;
choose("split", "test");
result.test = visible().length;
choose("split", ""); choose("group", cards[0].dataset.group);
const allLike = (key) => visible().every((card) => card.dataset[key] === cards[0].dataset[key]);
result.group = allLike("group") && visible().length;
choose("outcome", cards[0].dataset.outcome);
result.both = allLike("outcome") && visible().length;
result.said = document.getElementById("shown").textContent;
choose("group", ""); choose("outcome", "");
const one = document.querySelector("img[data-toggles]"), over = one.src;
const plain = one.closest(".panels").querySelector("img");
toggle.focus(); result.focused = document.activeElement === toggle;
toggle.click();
result.plain = one.src !== over && one.src === plain.src && toggle.getAttribute("aria-pressed");
toggle.click();
result.over = one.src === over && toggle.getAttribute("aria-pressed");
const links = [...document.querySelectorAll(".panels a")];
links[0].click();
result.large = large.open && byId("picture").src === links[0].querySelector("img").src;
const key = (name) => large.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
key("ArrowLeft"); key("ArrowRight"); key("ArrowRight");
result.next = byId("picture").src === links[2].querySelector("img").src && byId("picture").alt !== "";
byId("close").click();
result.closed = !large.open;
const button = settings.find((each) => each.getAttribute("aria-pressed") !== "true");
button.click();
const bars = [...document.querySelectorAll(".setting tbody tr")];
result.setting = byId("setting").textContent === button.dataset.setting
  && bars.map((row) => row.querySelector("td.mac").textContent).join(" ") === button.dataset.values
  && bars[0].querySelector("i.mac").style.getPropertyValue("--at") === button.dataset.values.split(" ")[0]
  && button.getAttribute("aria-pressed");
result.width = [document.documentElement.scrollWidth, window.innerWidth];
result.controls = [...document.querySelectorAll("select, button")].every((e) => e.tabIndex === 0);
console.log("RESULT " + JSON.stringify(result) + " END");
</script>
"""


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["reported", "nasty"])
def test_it_works_in_a_browser(
    which: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    project: Project = request.getfixturevalue(which)
    text = text_of(project)
    (tmp_path / "report.html").write_text(text.replace("</body>", SCRIPT + "</body>"))
    # In a frame, for a window cannot be as narrow as a phone.
    frame = f'<iframe src="report.html" width="{width}" height="800" style="border: 0"></iframe>'
    (tmp_path / "frame.html").write_text(frame)
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--window-size=1400,900", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # The result: neither errors nor refusals of the page's own content security policy.
    assert len(said) == 1, said
    found = re.search(r"RESULT (.*) END", said[0])
    assert found, done.stderr[-2000:]
    result = json.loads(found[1])
    cards = Page(text).all("article")
    first = cards[0]
    of_group = [card for card in cards if card["data-group"] == first["data-group"]]
    both = [card for card in of_group if card["data-outcome"] == first["data-outcome"]]
    assert result["all"] == len(cards)
    assert result["test"] == sum(card["data-split"] == "test" for card in cards)
    assert result["group"] == len(of_group)
    assert result["both"] == len(both)
    assert result["said"] == f"{len(both)} image" + ("s" if len(both) > 1 else "")
    assert (result["plain"], result["over"]) == ("false", "true")
    assert (result["focused"], result["controls"]) == (True, True)
    assert (result["large"], result["next"], result["closed"]) == (True, True, True)
    assert result["setting"] == "true"
    scroll, window = result["width"]
    assert window == width
    assert scroll <= window  # nothing sticks out on a phone
