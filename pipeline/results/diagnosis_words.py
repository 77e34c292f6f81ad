"""What the diagnosis says, in words: of the masks, of ERM's dependence on the background, of an early stop.

It is apart from `pipeline.results.judgement`, so that stage sweep does not depend on the words.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.results.early_stop import early
from pipeline.results.judgement import FEWEST, MOST_BLANK, Finding, Verdict, figures_of

MOST_NAMED = 5  # classes that are named in a line

_TRY = "another saliency.top_k, another saliency.method, or the other saliency.side"
_TRY_GIVEN = "other masks, or those of another saliency.method"
_ERM = "ERM's own head (the folder erm/)"
_LEADS: dict[Verdict, str] = {
    "holds": "Nothing here speaks against the method's assumption",
    "doubtful": "It is doubtful that the method's assumption holds here",
    "fails": "The method's assumption fails here",
    "unknown": "Nothing can be said about the method's assumption",
}
_ADVICE: dict[Verdict, str] = {
    "holds": (
        "This does not prove it: it looks the same if a cue lies on the object, if the validation split is "
        "as biased as the training split, or if the highest scores lie on the shortcut itself. And it "
        "promises no gain: compare MaC with plain last-layer retraining (LLR)."
    ),
    "doubtful": f"Look at the masks; try {{other}}; and compare with {_ERM}.",
    "fails": (
        f"Look at the masks and try {{other}}. If it still fails, use {_ERM}; the sweep can pick it too, if "
        "retrain.alpha and retrain.beta are auto. Retraining without intervention (both 0) may also do harm."
    ),
    "unknown": "Look at the masks, and compare MaC with ERM on images without the spurious correlation.",
}


# What is assumed, by the side of the masks.
ASSUMPTION = {
    "core": "ERM's highest scores lie on the core, which decides the class.",
    "rest": (
        "ERM's highest scores lie on the background; the core, which decides the class, is all else "
        "(saliency.side: rest)."
    ),
    "mixed": (
        "ERM's highest scores lie on the core of some classes, and on the background of the others "
        "(saliency.side: auto). The core decides the class."
    ),
    "given": "The masks that were given cover the core, which decides the class.",
}
_SIDES = {"rest": "rest", "mixed": "auto"}  # saliency.side, where the verdict is not calibrated


def sentence(diagnosis: Mapping[str, Any]) -> str:
    """What was found, in one plain sentence.

    Args:
        diagnosis: from `pipeline.results.diagnosis.diagnose`.
    """
    said, verdict = _reason(diagnosis), diagnosis["verdict"]
    if verdict != "unknown" and (side := _SIDES.get(diagnosis["side"])):
        said += f"; with saliency.side: {side} this verdict is not calibrated"
    return f"{_LEADS[verdict]}: {said}."


def in_short(diagnosis: Mapping[str, Any]) -> str:
    """The verdict, the dependence and an early stop without their figures, in one sentence."""
    leads = [_LEADS[diagnosis["verdict"]]]
    if (found := diagnosis.get("dependence", "unknown")) != "unknown":
        leads.append(_DEPENDENCE[found][0])
    if told := early(diagnosis):
        leads.append(told.partition(":")[0])
    lower = [lead if lead.startswith("ERM") else lead[0].lower() + lead[1:] for lead in leads]
    return f"By the diagnosis, {'; '.join(lower)}."


def advice(diagnosis: Mapping[str, Any]) -> str:
    """What to do about it, or how far the verdict goes."""
    other = _TRY_GIVEN if diagnosis.get("side") == "given" else _TRY
    return _ADVICE[diagnosis["verdict"]].format(other=other)


def dependence(diagnosis: Mapping[str, Any]) -> str:
    """Whether ERM depends on the background, in one plain sentence; empty if it was not measured."""
    if diagnosis.get("dependence", "unknown") == "unknown":  # metrics.json of an earlier version has none
        return ""
    row, (lead, end) = diagnosis["balanced"], _DEPENDENCE[diagnosis["dependence"]]
    low, high = (100 * row["dependence_interval"][name] for name in ("low", "high"))
    same, own = _percent(row["same"]), _percent(row["own"])
    difference = f"difference {low:.0f} to {high:.0f} points, 95 % over validation images"
    seen = f"it recognises {same} of the cores on training images of their class, {own} on those of another"
    return f"{lead}: {seen} ({difference}).{end}"


_DEPENDENCE = {
    "depends": ("ERM depends on the background, or on what the masks leave of the object", ""),
    "unclear": (
        "It is not clear whether ERM depends on the background",
        " In trials where it was not clear, MaC was seldom better than plain last-layer retraining.",
    ),
}
# What is said of classes with one finding, and what to do about it.
_FINDINGS: dict[Finding, tuple[str, str]] = {
    "few": (f"fewer than {FEWEST} validation images", "nothing can be said"),
    "blank": ("many blank maps", "try another saliency.method"),
    "background": (
        "the background decides",
        "the combined images (retrain.beta) are meant for this, if the masks lie on the object: look at them",
    ),
    "core": (
        "the core alone is often not recognised",
        "try larger masks (saliency.top_k) or another saliency.method",
    ),
    "depends": ("depends on the background", "the combined images (retrain.beta) are meant for this"),
}


def by_class(diagnosis: Mapping[str, Any]) -> list[str]:
    """What was found of the classes and what to do about it: a line for each finding, by name."""
    lines = []
    for found, (what, remedy) in _FINDINGS.items():
        rows = diagnosis.get("classes", {}).items()
        names = [name for name, row in rows if row.get("finding") == found]
        if names:
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            lines.append(f"{', '.join(names[:MOST_NAMED])}{more}: {what}; {remedy}.")
    return lines


def said(diagnosis: Mapping[str, Any]) -> list[str]:
    """All that is said of a diagnosis: verdict, dependence, an early stop, what to do, the classes."""
    first = [sentence(diagnosis), dependence(diagnosis), early(diagnosis)]
    lines = [*first, advice(diagnosis), *by_class(diagnosis)]
    return [line for line in lines if line]


def _reason(diagnosis: Mapping[str, Any]) -> str:
    if not diagnosis["images"]:
        return "no validation image has a mask"
    if len(diagnosis["classes"]) < 2:
        return "the validation images with a mask have one class only"
    found, seen = figures_of(diagnosis), f"{diagnosis['images']} validation images"
    if diagnosis["verdict"] == "unknown":
        if found.fewest < FEWEST:
            return f"a class has only {found.fewest} validation images with a mask, fewer than {FEWEST}"
        return f"ERM itself knows the classes of only {_percent(found.original)} of the {seen}"
    core, rest, blank = (_percent(share) for share in (found.core, found.rest, found.blank))
    told = f"ERM recognises {core} of the {seen} by the core alone and {rest} by the rest alone"
    own, partner = _percent(found.own), _percent(found.partner)
    told += f"; {own} of the combined images keep the class of the core, {partner} take the background's"
    if diagnosis["verdict"] != "holds" and found.blank > MOST_BLANK:
        told += f"; {blank} of the maps are blank"
    return told


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
