"""Does the method's assumption hold here? ERM on views of the validation images; no group label is read.

Each validation image is seen whole, as its core alone, as its rest alone, and with its core on the background
of two training images: one of another class, and one of its own. The backgrounds of training images are what
ERM has learnt from, so they go with the classes if anything does. The masks are the images' own, for the
class of `saliency.target`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MacError
from pipeline.method.kinds import AS_GIVEN
from pipeline.project import Opened
from pipeline.results.blanks import blank_in
from pipeline.results.intervals import difference_interval, mean_interval, wilson
from pipeline.results.judgement import depends, figures_of, finding, judged
from pipeline.results.sides import sides_of

Shares = Mapping[str, NDArray[np.float64]]


def diagnose(given: Opened) -> dict[str, Any]:
    """The diagnosis, JSON-able; all shares are in [0, 1].

    Args:
        given: images, erm, masks and features.

    Raises:
        MacError: features.h5 is of an earlier version.

    Returns:
        `verdict`: of `judgement.judged`. `dependence`: of `judgement.depends`.
        `side`: the side of the masks, core or rest; or mixed, if it is not that of all classes
            (`saliency.side: auto`); given, if the masks are no maps' but true masks or the user's files.
        `images`: how many validation images have a mask. `draws`: over how many draws of fills and partners
        their shares are means.
        `all`, `balanced`, `classes.<name>`: the shares of `views` over all images, with classes weighing
        alike, and by class; each with `<share>_interval`, `{low, high}`: 95 %, over other validation images
        like these; ERM and the draws are as they are. They also have `dependence`, `same` minus `own`, in
        [−1, 1]. `classes.<name>` also has `images`, and `finding` of `judgement.finding`.
        `blank.train`, `blank.val`: `count` and `share` of the images with a mask whose map is blank; also by
        class.
    """
    blank = {"train": _blanks(given, "")}
    sides = set(sides_of(given, len(given.groups.classes)))
    is_given = given.stated("masks", "method") in AS_GIVEN
    side = "given" if is_given else "mixed" if len(sides) > 1 else sides.pop()
    always = {"side": side, "blank": blank}
    if "val/position" not in given.file("features"):
        return {"verdict": "unknown", "dependence": "unknown", "images": 0, "draws": 0, **always}
    blank["val"] = _blanks(given, "val/")
    seen, truth = views(given)
    by_class = {}
    for code in np.unique(truth):
        members = {name: share[truth == code] for name, share in seen.items()}
        count = int((truth == code).sum())
        by_class[given.groups.classes[code]] = {"images": count, **_row(members)}
    found = {
        **always,
        "images": len(truth),
        "draws": len(given.file("features")["val/masked"]),
        "all": _row(seen),
        "balanced": _balanced(list(by_class.values())),
        "classes": by_class,
    }
    figures = figures_of(found)
    for name, row in by_class.items():
        row["finding"] = finding(row, blank["val"]["classes"][name]["share"], figures)
    return {"verdict": judged(figures), "dependence": depends(figures), **found}


def views(given: Opened) -> tuple[Shares, NDArray[np.int64]]:
    """What ERM says of the views of each validation image that has a mask; and the images' classes, (n,).

    Args:
        given: erm and features.

    Raises:
        MacError: features.h5 is of an earlier version, whose partners are validation images.

    Returns:
        (n,) shares of the draws: `original`, `core` and `rest`: in which ERM is right; `same`: in which it is
        right about the core on an image of the same class; `own`, `partner` and `neither`: in which it gives
        the core on an image of another class the class of its core, of its background, or another one;
        `swayed`: in which it is right about the image and wrong about the latter. `same` is absent if the
        retraining set lacks a class of the images.
    """
    features, head = given.file("features"), given.model("erm").head()
    if "val/train_partner" not in features:
        remedy = given.project.kinds["features"].remedy
        raise MacError(f"{features.path}: of an earlier version, without 'val/train_partner'; {remedy}")
    position = features["val/position"][:]
    own = features["val/label"][:][position]
    partner = features["train/label"][:][features["val/train_partner"][:]]

    def predicted(x: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.asarray(head.logits(x)[0].argmax(-1))

    def over_draws(name: str) -> NDArray[np.int64]:
        return np.stack([predicted(x) for x in features[f"val/{name}"]])

    right = predicted(features["val/original"][:][position]) == own
    seen = {"original": right.astype(np.float64)}
    seen["core"] = (over_draws("masked") == own).mean(0)
    seen["rest"] = (over_draws("rest") == own).mean(0)
    if "val/combined_same" in features:
        seen["same"] = (over_draws("combined_same") == own).mean(0)
    combined = over_draws("combined")
    seen["own"] = (combined == own).mean(0)
    seen["partner"] = (combined == partner).mean(0)
    seen["neither"] = ((combined != own) & (combined != partner)).mean(0)
    seen["swayed"] = (right & (combined != own)).mean(0)
    return seen, own


def _row(seen: Shares) -> dict[str, Any]:
    """The mean of each share over some images, with its interval."""
    row: dict[str, Any] = {}
    for name, share in seen.items():
        mean = float(share.mean())
        low, high = wilson(mean, len(share))
        row |= {name: mean, f"{name}_interval": {"low": low, "high": high}}
    if "same" in seen:
        low, high = difference_interval(seen["same"], seen["own"])
        row |= {"dependence": row["same"] - row["own"], "dependence_interval": {"low": low, "high": high}}
    return row


def _balanced(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each share over the classes, with its interval."""
    row: dict[str, Any] = {}
    for name in [key for key in rows[0] if f"{key}_interval" in rows[0]]:
        share = np.array([each[name] for each in rows])
        lows = np.array([each[f"{name}_interval"]["low"] for each in rows])
        highs = np.array([each[f"{name}_interval"]["high"] for each in rows])
        low, high = mean_interval(share, lows, highs, -1.0 if name == "dependence" else 0.0)
        row |= {name: float(share.mean()), f"{name}_interval": {"low": low, "high": high}}
    return row


def _blanks(given: Opened, part: str) -> dict[str, Any]:
    """Count and share of the blank maps of the images in one part of masks.h5, and by class."""
    masks, classes = given.file("masks"), given.groups.classes
    of = given.file("images")["label"][:][masks[f"{part}row"][:]]
    blank = blank_in(masks[f"{part}cam"], given.stated("masks", "method"))
    by_class = {classes[code]: _counted(blank[of == code]) for code in np.unique(of)}
    return {**_counted(blank), "classes": by_class}


def _counted(blank: NDArray[np.bool_]) -> dict[str, Any]:
    return {"count": int(blank.sum()), "share": float(blank.mean())}
