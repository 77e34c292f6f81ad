"""Which side of its maps is the core of each class."""

from typing import Literal

from pipeline.method.kinds import AS_GIVEN
from pipeline.project import Opened

Side = Literal["core", "rest"]  # the core is the K highest pixels, or all others


def sides_of(given: Opened, classes: int) -> list[Side]:
    """`saliency.side` of masks.h5 for each class; of `auto`, what it found. True masks and those of
    the user's files are taken as the core.

    Args:
        given: masks.
        classes: how many classes there are.
    """
    masks, side = given.file("masks"), given.stated("masks", "side")
    if given.stated("masks", "method") in AS_GIVEN:
        return ["core"] * classes
    if side == "auto":
        return ["rest" if rest else "core" for rest in masks["rest"][:]]
    return [side] * classes
