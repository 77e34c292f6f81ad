"""What is judged by the diagnosis' figures: the masks, and ERM's dependence on the background.

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
# in docs/diagnosis.md. A low value says that ERM finds little that goes with a class in the backgrounds of
# the retraining set, as far as the masks leave them; it cannot say that ERM depends on no shortcut.
DEPENDS = 0.05


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
