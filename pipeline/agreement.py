"""Whether artefacts that are opened together agree in sizes, names, and rows.

Each has the digests of what it was made from. But whoever changes one can state any digest. So what one says
of another is compared with it.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store import SPLITS, Artefact, ModelFolder

_MODELS = ("erm", "retrained", "baselines", "jtt", "masktune")


def _of_models(axis: str) -> tuple[str, ...]:
    return tuple(f"{name}/{axis}" for name in _MODELS)


# Axes that have the same length wherever they are; a number is the length.
ALIKE: tuple[tuple[str | int, ...], ...] = (
    ("images/classes", *_of_models("class"), "masks/class", "features/classes", "originals/classes"),
    ("images/height", "images/width", *_of_models("stored_size")),
    (*_of_models("input_size"), "masks/height", "masks/width", "examples/height", "examples/width"),
    (*_of_models("feature"), "originals/feature", "features/feature", "examples/feature"),
    ("maps/position", "masks/position", "features/train position"),
    ("maps/val position", "masks/val position", "features/masked position"),
    (5, "examples/picture"),
)


class DisagreementError(Exception):
    """What is wrong with an artefact.

    Attributes:
        name: the artefact.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(what)
        self.name = name


def require_agreement(found: Mapping[str, Any]) -> None:
    """Compare opened artefacts with each other.

    Args:
        found: the artefacts by name; tables are not looked at.

    Raises:
        DisagreementError: they contradict each other.
    """
    files = {name: each for name, each in found.items() if isinstance(each, Artefact)}
    models = {name: each for name, each in found.items() if isinstance(each, ModelFolder)}
    lengths = _require_lengths({**files, **models})
    _require_names(files, models)
    for name, file in files.items():
        try:
            file.require_values(lengths)
        except ValueError as error:
            raise DisagreementError(name, str(error)) from None
    _require_rows(files)
    if "images" in files:
        _require_counts(files["images"]["split"][:], models)


def _require_counts(split: NDArray[np.integer], models: Mapping[str, ModelFolder]) -> None:
    """What models hold of each image of a split is of as many images as the split has."""
    for axis, name_of_split, what in (
        ("training image", "train", "early logits"),
        ("test image", "test", "answers"),
    ):
        count = int((split == SPLITS.index(name_of_split)).sum())
        for name, model in models.items():
            if model.lengths.get(axis, count) != count:
                raise DisagreementError(name, f"its {what} are not those of {count} {axis}s")


def _require_lengths(found: Mapping[str, Artefact | ModelFolder]) -> dict[str, int]:
    """Compare the lengths of axes; return all of them, as `<artefact>/<axis>`."""
    lengths: dict[str | int, int] = {}
    for name, artefact in found.items():
        lengths |= {f"{name}/{axis}": length for axis, length in artefact.lengths.items()}
    for axes in ALIKE:
        known = {axis: axis if isinstance(axis, int) else lengths.get(axis) for axis in axes}
        known = {axis: length for axis, length in known.items() if length is not None}
        if len(set(known.values())) > 1:
            said = ", ".join(f"{axis} {length}" for axis, length in known.items() if axis != length)
            last = str(list(known)[-1]).partition("/")[0]
            raise DisagreementError(last, f"does not belong to the other artefacts: {said}")
    return {str(axis): length for axis, length in lengths.items()}


def _require_names(files: Mapping[str, Artefact], models: Mapping[str, ModelFolder]) -> None:
    """The names of classes and attributes are the same wherever they are."""
    for what in ("classes", "attributes"):
        names = {name: file.names[what] for name, file in files.items() if what in file.names}
        names |= {name: getattr(model.spec, what) for name, model in models.items()}
        for name, each in names.items():
            if each != next(iter(names.values())):
                raise DisagreementError(name, f"has other {what} than {next(iter(names))}")


def _require_rows(files: Mapping[str, Artefact]) -> None:
    """The rows, labels and attributes of features are those of images.h5; the rows of maps and masks too."""
    images = files.get("images")
    for name in ("originals", "features"):
        if images and name in files:
            _require_rows_of_images(images, files[name], name)
    for name, (prefix, code) in product(("maps", "masks"), (("", 0), ("val/", 1))):
        if name not in files or f"{prefix}row" not in files[name]:
            continue
        rows = files[name][f"{prefix}row"][:]
        if images and not (images["split"][:][rows] == code).all():
            raise DisagreementError(name, f"has rows in {prefix}row that are not of {SPLITS[code]}")
        features = files.get("features")
        if features and not np.array_equal(rows, _rows_with_masks(features, prefix)):
            raise DisagreementError("features", f"its images are not those of {prefix}row in {name}.h5")


def _require_rows_of_images(images: Artefact, found: Artefact, name: str) -> None:
    """The rows, labels and attributes of the splits of `found` are those of images.h5."""
    split = images["split"][:]
    known = {column: images[column][:] for column in ("label", "attribute")}
    for code, of in enumerate(SPLITS):
        rows = found[f"{of}/row"][:]
        whole = rows if of == "train" else np.flatnonzero(split == code)  # training: perhaps not all
        same = np.array_equal(rows, whole) and bool((split[rows] == code).all())
        for column, values in known.items():
            same = same and np.array_equal(found[f"{of}/{column}"][:], values[rows])
        if not same:
            raise DisagreementError(name, f"its rows of {of}/ are not those of images.h5")


def _rows_with_masks(features: Artefact, prefix: str) -> NDArray[np.int64]:
    """The rows of images.h5 whose masked views are in features.h5."""
    rows: NDArray[np.int64] = features[f"{prefix or 'train/'}row"][:]
    return rows[features["val/position"][:]] if prefix else rows
