"""Was ERM stopped early? What `pipeline.results.convergence` measured is judged, and said in words.

How the bounds were set is said there.
"""

from collections.abc import Mapping
from typing import Any

EARLY_GAIN = 0.01  # of all validation images, so many more are right when its last layer is trained on
EARLY_P = 0.01  # and so unlikely is it that this is by chance


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
