"""Which side of its maps is the core of each class."""

from pipeline.params.maps import Side
from pipeline.project import Opened


def sides_of(given: Opened, classes: int) -> tuple[Side, ...]:
    """`saliency.side` of masks.h5 for each class; of `auto`, what it found. True masks are taken as the core.

    Args:
        given: masks.
        classes: how many classes there are.
    """
    masks, side = given.file("masks"), given.stated("masks", "side")
    if given.stated("masks", "method") == "foreground":
        core: Side = "core"
        return (core,) * classes
    if side == "auto":
        each: list[Side] = ["rest" if rest else "core" for rest in masks["rest"][:]]
        return tuple(each)
    return (side,) * classes
