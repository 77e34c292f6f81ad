"""What the diagnosis says: of the masks, of ERM's dependence on the background, and of an early stop.

The first is the verdict on the method's assumption: ERM's highest scores, or with `saliency.side: rest` all
others, lie on the core. The core decides the class, and the rest can be changed. The second is the
dependence: how much worse ERM gets on a background of another class of the retraining set than on one of the
same class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["holds", "doubtful", "fails", "unknown"]
Dependence = Literal["depends", "unclear", "unknown"]
Finding = Literal["few", "blank", "background", "core", "depends", "none"]

# Shares are chance-corrected: 0 is a blind guess, 1 is always right. The bounds are set by what retraining
# did: it helped on Waterbirds (core .90, rest .53) and the demo (.69, .15); it hurt on BAR (.72, .77).
FEWEST = 10  # validation images of the smallest class; with fewer, nothing is said
ERM_KNOWS = 0.2  # ERM on the originals: below this it has learnt no classes, so it cannot tell their core
FAILS_MARGIN = 0.05  # core − rest: up to this, the rest tells as much as the core
HOLDS_MARGIN = 0.2  # core − rest: from this, the core clearly tells more
HOLDS_CORE = 0.5  # core: from this, the core alone is enough for most images
MOST_BLANK = 0.1  # share of images with a blank map: up to this, masks are to be trusted
# same − own: if its 95 % interval is above this, ERM depends on the background. It was set before the trials
# in docs/parameters.md. A low value says that ERM finds little that goes with a class in the backgrounds of
# the retraining set, as far as the masks leave them; it cannot say that ERM depends on no shortcut.
DEPENDS = 0.05
# An ERM that was stopped early: see `pipeline.results.convergence`, also for how the bounds were set.
EARLY_GAIN = 0.01  # of all validation images, so many more are right when its last layer is trained on
EARLY_P = 0.01  # and so unlikely is it that this is by chance
MOST_NAMED = 5  # classes that are named in a line


@dataclass(frozen=True)
class Figures:
    """What is judged: ERM's answers on views of the validation images, classes weighing alike.

    Attributes:
        classes: how many classes the validation images have.
        fewest: validation images of the smallest of them.
        original, core, rest: accuracy on the images, on their cores alone, on their rests alone.
        own, partner: share of the combined images that ERM gives the class of the core, of the background.
        blank: share of the validation images whose map is blank.
        same: share of the cores on images of the same class that ERM gives their class; None if not measured.
        low, high: the 95 % interval of same − own.
    """

    classes: int
    fewest: int
    original: float
    core: float
    rest: float
    own: float
    partner: float
    blank: float
    same: float | None = None
    low: float = -1.0
    high: float = 1.0

    def corrected(self, accuracy: float) -> float:
        """A class-balanced accuracy, so that 0 is a blind guess, or worse, and 1 is always right."""
        return max(0.0, (accuracy - 1 / self.classes) / (1 - 1 / self.classes))

    @property
    def margin(self) -> float:
        """How much more the core tells than the rest, chance-corrected."""
        return self.corrected(self.core) - self.corrected(self.rest)


def judged(figures: Figures) -> Verdict:
    """The verdict. What combined images are taken for does not count: it tells of the dependence, too."""
    if figures.classes < 2 or figures.fewest < FEWEST or figures.corrected(figures.original) < ERM_KNOWS:
        return "unknown"
    if figures.margin <= FAILS_MARGIN:
        return "fails"
    clear = figures.margin >= HOLDS_MARGIN and figures.corrected(figures.core) >= HOLDS_CORE
    return "holds" if clear and figures.blank <= MOST_BLANK else "doubtful"


def depends(figures: Figures) -> Dependence:
    """Whether ERM depends on the background: `unclear` if the interval of same − own does not show it.

    It is `unclear` too if ERM does not even know the cores on images of their own class, or if many maps are
    blank, so that many masks say nothing of the class. That ERM does not depend is never said. What the masks
    leave of the other object counts as background.
    """
    if figures.same is None or judged(figures) == "unknown":
        return "unknown"
    known = figures.corrected(figures.same) >= ERM_KNOWS and figures.blank <= MOST_BLANK
    return "depends" if known and figures.low >= DEPENDS else "unclear"


def finding(row: Mapping[str, Any], blank: float, figures: Figures) -> Finding:
    """What is to be said of one class: the first of these that is clear, by the 95 % intervals.

    `few`: it has too few images; `blank`: too many blank maps; `background`: the combined images take the
    class of the background more often than its own; `core`: ERM often misses the core alone; `depends`:
    as `depends`, for this class; `none`: nothing is clear, or ERM has learnt no classes.

    Args:
        row: the shares of the class, with their intervals.
        blank: share of its maps that are blank.
        figures: of all classes.
    """
    if figures.classes < 2 or figures.corrected(figures.original) < ERM_KNOWS:
        return "none"
    if row["images"] < FEWEST:
        return "few"
    if blank > MOST_BLANK:
        return "blank"
    if row["own_interval"]["high"] < row["partner_interval"]["low"]:
        return "background"
    if figures.corrected(row["core_interval"]["high"]) < HOLDS_CORE:
        return "core"
    known = "same" in row and figures.corrected(row["same"]) >= ERM_KNOWS
    return "depends" if known and row["dependence_interval"]["low"] >= DEPENDS else "none"


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


def stopped_early(convergence: Mapping[str, Any]) -> bool:
    """Whether ERM was clearly stopped early. If not, nothing is known: few validation images may show it.

    Args:
        convergence: from `pipeline.results.convergence.convergence`.
    """
    gain = (convergence["later"] - convergence["right"]) / convergence["images"]
    fell = convergence["lowest"] < convergence["loss"]
    return bool(fell and gain >= EARLY_GAIN and convergence["p"] <= EARLY_P)


def early(diagnosis: Mapping[str, Any]) -> str:
    """That ERM was stopped early and what to do, in plain sentences; empty if this is not clear."""
    found = diagnosis.get("convergence")  # metrics.json of an earlier version has none
    if not found or not stopped_early(found):
        return ""
    who, remedy = _EARLY["own" if found["own"] else "erm"]
    right, later = (f"{100 * found[name] / found['images']:.1f} %" for name in ("right", "later"))
    loss, lowest = f"{found['loss']:.2g}", f"{found['lowest']:.2g}"
    return (
        f"{who} was stopped early: trained on, its last layer alone lowers the loss on the training images "
        f"from {loss} to {lowest}, and is right about {later} of the validation images in place of {right}. "
        f"Retraining the last layer gains this without any mask: {remedy}."
    )


_LLR = "compare MaC with plain last-layer retraining (LLR)"
_EARLY = {
    "erm": ("ERM", f"train longer (train.epochs) or with a larger train.lr, and {_LLR}"),
    "own": ("The classifier", f"{_LLR}, not with the classifier"),
}


def said(diagnosis: Mapping[str, Any]) -> list[str]:
    """All that is said of a diagnosis: verdict, dependence, an early stop, what to do, the classes."""
    first = [sentence(diagnosis), dependence(diagnosis), early(diagnosis)]
    lines = [*first, advice(diagnosis), *by_class(diagnosis)]
    return [line for line in lines if line]


def figures_of(diagnosis: Mapping[str, Any]) -> Figures:
    """The figures in a diagnosis that has measured validation images."""
    balanced, classes = diagnosis["balanced"], diagnosis["classes"].values()
    return Figures(
        classes=len(classes),
        fewest=min(row["images"] for row in classes),
        original=balanced["original"],
        core=balanced["core"],
        rest=balanced["rest"],
        own=balanced["own"],
        partner=balanced["partner"],
        blank=diagnosis["blank"]["val"]["share"],
        same=balanced.get("same"),
        **balanced.get("dependence_interval", {}),
    )


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
