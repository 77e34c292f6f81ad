"""The card says the right thing of each head."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from pipeline import graph
from pipeline.project import Opened, Project
from pipeline.results.calibration import Calibration, Fit
from pipeline.results.convergence import whole_diagnosis
from pipeline.results.diagnosis_words import sentence
from pipeline.results.early_stop import early
from pipeline.results.evaluation import verdict_of
from pipeline.steps import evaluate
from pipeline.tools import card
from pipeline.tools.heads import artefact_of, named_head
from tests import made_up


def written(project: Project, name: str) -> str:
    opened = dict.fromkeys(("images", "erm", artefact_of(name), *card.needs(name)))
    with project.open(*opened) as given:
        return card.card(given, named_head(given, name), "model.pt", "TorchScript", "It was compared.")


@pytest.mark.parametrize("name", ["erm", "mac", "dfr"])
def test_what_holds_for_every_head(artefacts: Project, name: str) -> None:
    text = written(artefacts, name)
    for words in (
        "# `model.pt`\n",
        "A `shufflenet_v2_x0_5` that tells `landbird`, `waterbird` apart (TorchScript).",
        "(N, 3, 64, 64) float32",
        "scaled to 72 × 72 pixels",
        "the middle 64 × 64 pixels",
        "minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)",
        "It was compared.",
        "Dataset `made up`; 12 test images: `landbird_land` 3, `landbird_water` 3",
        "Spurious attribute: `land`, `water`.",
        "## Method",
        "## Results",
        "## Limits",
        "ECE",
        "Model digest: `",
    ):
        assert words in text
    assert ("last layer is retrained" in text) == (name == "mac")
    assert ("the method's assumption" in text) == (name == "mac")
    assert ("no defence against" in text) == (name == "erm")


def test_the_range_of_deep_grey(artefacts: Project) -> None:
    assert "scaled to 8 bits before: what its file declares, else 65535, is white." in written(
        artefacts, "erm"
    )
    with artefacts.open("erm") as given:
        lines = list(card._input_and_output(replace(given.model("erm").spec, range=4095)))
    assert "- Grey of more than 8 bits is scaled to 8 bits before: 4095 is white." in lines


def test_erm(artefacts: Project) -> None:
    text = written(artefacts, "erm")
    assert "ERM and MaC on the test split" in text
    assert "The file holds one of" not in text


@pytest.mark.parametrize("name", ["erm", "mac", "dfr"])
def test_of_one_s_own_classifier_no_training_is_claimed(artefacts: Project, name: str) -> None:
    with artefacts.open(*dict.fromkeys(("images", "erm", artefact_of(name), *card.needs(name)))) as given:
        erm = given.model("erm")
        made_from = {**erm.provenance.made_from, "classifier": "0" * 64}
        erm = replace(erm, provenance=replace(erm.provenance, made_from=made_from))
        own = Opened(given.project, {**given._artefacts, "erm": erm})
        text = card.card(own, named_head(own, name), "model.pt", "TorchScript", "It was compared.")
    assert "How the user's network was trained is not known, nor which labels it saw." in text
    assert "trained as usual" not in text
    assert ("in the place of ERM" in text) == (name == "erm")


def test_a_penalty_that_was_picked(artefacts: Project) -> None:
    with artefacts.open("images", "erm", "retrained", *card.needs("mac")) as given:
        head = replace(named_head(given, "mac"), chosen={"alpha": 1.0, "beta": 2.0, "l2": 0.3})
        text = card.card(given, head, "model.pt", "TorchScript", "It was compared.")
    assert "(β = 2), with an L2 penalty of the strength l2 = 0.3." in text


def test_mac(artefacts: Project) -> None:
    text = written(artefacts, "mac")
    assert "(α = 1), and on their cores over backgrounds of other classes (β = 2)" in text
    assert "Set in params.yaml: α = 1, β = 2." in text
    with artefacts.open("images", "erm", "masks", "features") as given:
        assert sentence(whole_diagnosis(given)) in text
    assert "The group labels of the validation split served to choose settings alone." in text
    assert "ERM and MaC on the test split" in text
    assert "The file holds one of the 2 heads: the one that the validation split prefers." in text


def test_mac_on_an_erm_that_was_stopped_early(own_artefacts: Project) -> None:
    later = {"loss": 0.2, "lowest": 0.1, "images": 100, "right": 80, "later": 90, "p": 0.001}
    file = own_artefacts.path("baselines") / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["convergence"] |= later
    file.write_text(json.dumps(metrics))
    assert early(metrics)
    assert early(metrics) in written(own_artefacts, "mac")


def test_mac_begins_its_results_with_the_verdict(artefacts: Project) -> None:
    with artefacts.open(*graph.stage("evaluate").needs) as given:
        metrics, _ = evaluate.whole(given)
    results = written(artefacts, "mac").partition("## Results\n\n")[2]
    assert results.startswith(str(verdict_of(metrics)))


def test_mac_that_is_erm_as_it_is(own_artefacts: Project) -> None:
    made_up.prefer_erm(own_artefacts)
    text = written(own_artefacts, "mac")
    assert "Its last layer is not retrained." in text
    assert "ERM as it is: validation prefers no retraining." in text
    assert "The file holds one of" not in text


def test_a_calibrated_head_that_was_trained_on_validation(artefacts: Project) -> None:
    fits = Fit(ece=0.1, nll=0.25), Fit(ece=0.02, nll=0.125)
    with artefacts.open("images", "erm", "features", "baselines") as given:
        found = Calibration(1.5, "all right", *fits)
        text = card.card(given, named_head(given, "dfr"), "model.pt", "TorchScript", "It was.", found)
    assert "T = 1.5. The head is right about all validation images, so they set no lower limit to T." in text
    assert "The 8 validation images: `landbird_land` 2, `landbird_water` 2, " in text
    assert "it is surer of them than of others" in text
    assert "calibration error (ECE), %            10.00     2.00\n" in text
    assert "negative log-likelihood, nats        0.2500   0.1250\n" in text


def test_another_method_needs_no_mac(own_artefacts: Project) -> None:
    for file in own_artefacts.path("retrained").iterdir():
        file.unlink()
    own_artefacts.path("features").unlink()
    text = written(own_artefacts, "dfr")
    assert "DFR (Kirichenko et al. 2023)" in text
    assert "MaC" not in text
    assert "The validation split chose C 0.3." in text
    assert "It is trained on the group labels of the validation split." in text
    assert "DFR on the test split" in text
    assert "waterbird_water                   100.00" in text
    assert "The file holds one of the 3 heads" in text


def test_a_dataset_whose_attribute_is_not_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = made_up.write(tmp_path_factory.mktemp("unknown"), spec=replace(made_up.SPEC, attributes=()))
    text = written(project, "dfr")
    assert "Spurious attribute: none is known." in text
    assert "12 test images: `landbird` 6, `waterbird` 6." in text


@pytest.mark.parametrize(
    "name", ["`", "a``b`", "<script>alert(1)</script>", "</code>", "```", "*_[x](y)_*", "a|b"]
)
def test_a_name_is_no_markup(name: str, tmp_path: Path) -> None:
    spec = replace(made_up.SPEC, classes=(name, "other"), attributes=(f"{name}\x1b\n# x", "water"))
    text = written(made_up.write(tmp_path, spec=spec), "mac")
    tokens = MarkdownIt().parse(text)
    assert {token.type for token in tokens} & {"html_block", "table_open"} == set()
    spans, kinds = [], set()
    for token in tokens:
        for child in token.children or ():
            kinds.add(child.type)
            spans += [child.content] if child.type == "code_inline" else []
    assert not kinds & {"html_inline", "link_open", "image"}
    assert spans.count(name) == 2  # of what it tells apart, and in which order
    assert f"{name}\\x1b\\n# x" in spans
    assert [token.content for token in tokens if token.type == "heading_open"] == [""] * 6
    (results,) = [token.content for token in tokens if token.type == "fence"]
    assert f"{name}_water" in results
