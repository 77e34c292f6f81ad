"""What is said of a diagnosis."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.results.diagnosis_words import (
    ASSUMPTION,
    advice,
    by_class,
    dependence,
    in_short,
    said,
    sentence,
)
from pipeline.results.early_stop import early
from pipeline.results.judgement import Figures, depends, judged
from tests.figures import BAR, WATERBIRDS


def diagnosis(figures: Figures, side: str = "core") -> dict[str, Any]:
    """What `diagnose` would return, as far as words go."""
    balanced = {name: getattr(figures, name) for name in ("original", "core", "rest", "own", "partner")}
    if figures.same is not None:
        ends = {"low": figures.low, "high": figures.high}
        balanced |= {"same": figures.same, "dependence_interval": ends}
    return {
        "verdict": judged(figures),
        "dependence": depends(figures),
        "side": side,
        "images": figures.classes * figures.fewest,
        "balanced": balanced,
        "classes": {str(code): {"images": figures.fewest} for code in range(figures.classes)},
        "blank": {"val": {"share": figures.blank}},
    }


def test_the_sentence_says_what_was_found_and_no_more() -> None:
    found = diagnosis(BAR)
    assert sentence(found) == (
        "The method's assumption fails here: ERM recognises 77 % of the 120 validation images by the core "
        "alone and 81 % by the rest alone; 55 % of the combined images keep the class of the core, 35 % take "
        "the background's."
    )
    for remedy in ("saliency.top_k", "saliency.method", "saliency.side", "use ERM's own head", "both 0"):
        assert remedy in advice(found)
    assert "try other masks, or those of another saliency.method" in advice(diagnosis(BAR, side="given"))
    found = diagnosis(WATERBIRDS)
    assert sentence(found).startswith(
        "Nothing here speaks against the method's assumption: ERM recognises 95 %"
    )
    assert advice(found).startswith("This does not prove it: it looks the same if a cue lies on the object")
    assert "compare with ERM's own head (the folder erm/)" in advice(
        diagnosis(replace(WATERBIRDS, rest=0.88))
    )
    found = diagnosis(replace(WATERBIRDS, blank=0.25))
    assert sentence(found).startswith("It is doubtful that")
    assert sentence(found).endswith("; 25 % of the maps are blank.")


def test_with_the_other_side_the_verdict_is_not_calibrated() -> None:
    said = sentence(diagnosis(WATERBIRDS, "rest"))
    assert said.endswith("take the background's; with saliency.side: rest this verdict is not calibrated.")
    assert "calibrated" not in sentence(diagnosis(replace(WATERBIRDS, fewest=3), "rest"))
    assert "highest scores lie on the background" in ASSUMPTION["rest"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fewest": 3}, "a class has only 3 validation images with a mask, fewer than 10"),
        ({"classes": 1}, "have one class only"),
        ({"original": 0.55}, "ERM itself knows the classes of only 55 % of the 200 validation images"),
    ],
)
def test_why_nothing_can_be_said(change: dict[str, Any], reason: str) -> None:
    said = sentence(diagnosis(replace(WATERBIRDS, **change)))
    assert said.startswith("Nothing can be said about the method's assumption: ")
    assert reason in said


def test_without_masks_nothing_can_be_said() -> None:
    said = sentence({"verdict": "unknown", "images": 0})
    assert said == "Nothing can be said about the method's assumption: no validation image has a mask."


def test_the_dependence_is_told_with_its_interval() -> None:
    found = diagnosis(replace(WATERBIRDS, same=0.93, low=0.05, high=0.135))
    assert dependence(found) == (
        "ERM depends on the background, or on what the masks leave of the object: "
        "it recognises 93 % of the cores on training images of their class, "
        "84 % on those of another (difference 5 to 14 points, 95 % over validation images)."
    )
    assert said(found) == [sentence(found), dependence(found), advice(found)]
    found = diagnosis(replace(WATERBIRDS, same=0.85, low=-0.03, high=0.05))
    assert dependence(found).startswith("It is not clear whether ERM depends on the background: it recogn")
    assert (
        "(difference -3 to 5 points, 95 % over validation images). In trials where it was not clear, MaC"
        in dependence(found)
    )
    for measured_nothing in (diagnosis(WATERBIRDS), {"verdict": "unknown", "images": 0}):
        assert dependence(measured_nothing) == ""


def test_in_short_it_is_one_sentence() -> None:
    said_of = [
        in_short(diagnosis(replace(WATERBIRDS, same=0.93, low=low, high=0.2))) for low in (0.05, -0.05)
    ]
    lead = "By the diagnosis, nothing here speaks against the method's assumption;"
    assert said_of == [
        f"{lead} ERM depends on the background, or on what the masks leave of the object.",
        f"{lead} it is not clear whether ERM depends on the background.",
    ]
    nothing = {"verdict": "unknown", "dependence": "unknown", "images": 0}
    assert in_short(nothing) == "By the diagnosis, nothing can be said about the method's assumption."
    assert "the method's assumption fails here." in in_short(nothing | {"verdict": "fails"})


def test_classes_of_one_finding_share_a_line() -> None:
    findings = ["core", "none", *["depends"] * 7]
    classes = {f"c{code}": {"finding": found} for code, found in enumerate(findings)}
    lines = by_class({"classes": classes})
    assert lines == [
        "c0: the core alone is often not recognised; "
        "try larger masks (saliency.top_k) or another saliency.method.",
        "c2, c3, c4, c5, c6 and 2 more: depends on the background; "
        "the combined images (retrain.beta) are meant for this.",
    ]
    assert by_class({"verdict": "unknown", "images": 0}) == []


EARLY = {"own": False, "loss": 0.0285, "lowest": 0.0041, "images": 600, "right": 523, "later": 546, "p": 1e-6}


def test_an_erm_that_was_stopped_early_is_told_what_to_do() -> None:
    plain = said(diagnosis(WATERBIRDS))
    line = early({"convergence": EARLY})
    assert line.startswith("ERM was stopped early: trained on, its last layer alone lowers the loss on the ")
    assert (
        "training images from 0.029 to 0.0041, and is right about 91.0 % of the validation images in" in line
    )
    assert " in place of 87.2 %. " in line
    assert "train longer (train.epochs) or with a larger train.lr, and compare MaC with plain last-" in line
    assert said(diagnosis(WATERBIRDS) | {"convergence": EARLY}) == [plain[0], line, *plain[1:]]
    assert in_short(diagnosis(WATERBIRDS) | {"convergence": EARLY}).endswith("; ERM was stopped early.")
    own = early({"convergence": EARLY | {"own": True}})
    assert own.startswith("The classifier was stopped early")
    assert "train." not in own
    assert own.endswith("compare MaC with plain last-layer retraining (LLR), not with the classifier.")


@pytest.mark.parametrize("found", [None, EARLY | {"p": 0.02}, EARLY | {"later": 528}])
def test_where_an_early_stop_is_not_clear_nothing_is_said_of_it(found: dict[str, Any] | None) -> None:
    assert said(diagnosis(WATERBIRDS) | {"convergence": found}) == said(diagnosis(WATERBIRDS))
