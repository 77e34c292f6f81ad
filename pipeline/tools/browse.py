"""The images of a masks.h5, as a table that can be sorted and filtered, and as pictures (`mac inspect`).

The table shows how sure ERM is of an image, how much MaC disagrees, and how much of the true foreground the
mask covers. PyTorch is imported only where it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from pipeline import graph
from pipeline.errors import MacError, printable
from pipeline.project import Opened, Project
from pipeline.results import sheets, visual
from pipeline.results.blocks import in_blocks, logits
from pipeline.store import Artefact, ModelFolder

SORTS = {
    "coverage": "share of the true foreground that the mask covers, lowest first",
    "confidence": "ERM's probability of the image's class, lowest first",
    "disagreement": "how far MaC's probability of the image's class is from ERM's, farthest first",
    "iou": "overlap with the mask of the other file, lowest first",
}
# The first columns of the written table; after them come those of SORTS.
COLUMNS = ("row", "path", "group", "target", "erm", "mac", "right")
# Why a value may be unknown for all images.
_UNKNOWN = {
    "coverage": "the dataset has no true masks, or none with foreground and background",
    "iou": "there is no other masks file to compare with",
}
BARS = " ▁▂▃▄▅▆▇█"
SIDE = 176  # pixels of an image in a grid


@dataclass(frozen=True)
class MaskTable:
    """One row for each image of masks.h5, or for some of them.

    Attributes:
        position: (n,) in masks.h5.
        row: (n,) of images.h5.
        path, group, target: (n,) text; target is the class that the map explains.
        erm, mac: (n,) text, the classes that the two heads predict.
        right: (n,) bool, whether ERM is right.
        values: (n,) float for each name of SORTS; NaN if it is not known.
    """

    position: NDArray[np.int64]
    row: NDArray[np.int64]
    path: NDArray[np.str_]
    group: NDArray[np.str_]
    target: NDArray[np.str_]
    erm: NDArray[np.str_]
    mac: NDArray[np.str_]
    right: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.position)

    def take(self, chosen: NDArray[np.int64]) -> "MaskTable":
        """These rows of the table, in this order."""
        columns: dict[str, Any] = {}
        for field in fields(self):
            if field.name != "values":
                columns[field.name] = getattr(self, field.name)[chosen]
        values = {name: column[chosen] for name, column in self.values.items()}
        return MaskTable(**columns, values=values)

    def first(self, count: int) -> "MaskTable":
        """The first rows, at most `count`."""
        return self.take(np.arange(min(count, len(self))))

    def by(self, name: str) -> "MaskTable":
        """The table, sorted as SORTS says. Unknown values come last; equal values keep their order.

        Raises:
            MacError: the value is not known for any image.
        """
        values = -self.values[name] if name == "disagreement" else self.values[name]
        if np.isnan(values).all() and len(self):
            reason = _UNKNOWN.get(name, "its figures are not finite")
            raise MacError(f"{name}: not known of any image; {reason}")
        return self.take(np.argsort(values, kind="stable"))


def browse(path: Path, against: Path | None = None, coverage: bool = True) -> MaskTable:
    """The table of a masks.h5. images.h5, erm/, features.h5 and retrained/ must be in the same folder.

    Args:
        path: the masks.h5; it may have any name.
        against: another masks.h5 of the same images, for `iou`.
        coverage: whether to compute the coverage; for this, all masks are read.

    Raises:
        MacError: an artefact is missing, or does not belong to the others.
    """
    with graph.project(path.parent, masks=path).open(
        "masks", "images", "erm", "features", "retrained"
    ) as given:
        images, masks, features = (given.file(name) for name in ("images", "masks", "features"))
        rows, label = masks["row"][:], features["train/label"][:]
        before = _probabilities(given.model("erm"), features)
        after = _probabilities(given.model("retrained"), features)
        described = given.groups.described(label, features["train/attribute"][:])
        classes = np.array(given.groups.classes)
        of_label = np.arange(len(label)), label
        unknown = np.full(len(rows), np.nan)
        return MaskTable(
            position=np.arange(len(rows)),
            row=rows,
            path=np.array([name.decode() for name in images.rows("path", rows)]),
            group=np.array(described.names)[described.index],
            target=classes[masks["target"][:]],
            erm=classes[before.argmax(1)],
            mac=classes[after.argmax(1)],
            right=before.argmax(1) == label,
            values={
                "coverage": _coverage(given) if coverage else unknown,
                "confidence": before[of_label],
                "disagreement": np.abs(after[of_label] - before[of_label]),
                "iou": unknown if against is None else _overlap(given, against),
            },
        )


def _probabilities(folder: ModelFolder, features: Artefact) -> NDArray[np.float64]:
    """A model's probabilities for the retraining set, (M, classes)."""
    found = logits(folder.head(), features["train/original"])[0]
    return np.asarray(softmax(found.astype(np.float64), -1))


def _coverage(given: Opened) -> NDArray[np.float64]:
    """Share of the true foreground that each mask covers, (M,); NaN if it is not known."""
    from pipeline.results.coverage import shares

    _, _, mask_fg, _ = shares(given.file("images"), given.file("masks"), given.model("erm").spec)
    return np.asarray(mask_fg)


def _overlap(given: Opened, against: Path) -> NDArray[np.float64]:
    """Overlap (intersection over union) of each mask with the other file's, (M,); NaN if it has none."""
    masks = given.file("masks")
    rows = masks["row"][:]
    overlap = np.full(len(rows), np.nan)
    # Only the images must be the same: the other file may be from another ERM.
    kinds = {name: given.project.kinds[name] for name in ("images", "masks")}
    both = Project(given.project.data, kinds, {"images": given.project.path("images"), "masks": against})
    with both.open("images", "masks") as others:
        other = others.file("masks")
        if other["mask"].shape[1:] != masks["mask"].shape[1:]:
            theirs, ours = other["mask"].shape[1:], masks["mask"].shape[1:]
            raise MacError(f"{against}: its masks are {theirs}, those of {masks.path} {ours}")
        _, here, there = np.intersect1d(rows, other["row"][:], assume_unique=True, return_indices=True)
        if not len(here):
            raise MacError(f"{against}: has none of the images of {masks.path}")
        for block in in_blocks(np.arange(len(here)), masks["mask"]):
            one, two = masks.rows("mask", here[block]), other.rows("mask", there[block])
            overlap[here[block]] = (one & two).sum((1, 2)) / np.maximum((one | two).sum((1, 2)), 1)
    return overlap


def as_text(table: MaskTable, name: str, limit: int) -> str:
    """A value's distribution, its mean in every group, and the first images of the table, as text.

    Args:
        name: one of SORTS.
        limit: how many images to list.
    """
    values = table.values[name]
    known = ~np.isnan(values)
    lines = [f"{len(table)} images, {name}: {SORTS[name]}", histogram(values[known]), ""]
    lines.append(f"{'group':<28}{'n':>7}{'mean':>9}{'lowest':>9}{'highest':>9}")
    for group in np.unique(table.group):
        found = values[(table.group == group) & known]
        if len(found):
            spread = f"{found.mean():>9.3f}{found.min():>9.3f}{found.max():>9.3f}"
            lines.append(f"{group:<28}{len(found):>7}{spread}")
    lines += ["", f"{'row':>7}{name:>14}  {'group':<28}{'ERM':<16}{'MaC':<16}path"]
    shown = table.first(limit)
    for number in range(len(shown)):
        cells = f"{shown.row[number]:>7}{shown.values[name][number]:>14.3f}  {shown.group[number]:<28}"
        lines.append(f"{cells}{shown.erm[number]:<16}{shown.mac[number]:<16}{printable(shown.path[number])}")
    return "\n".join(lines)


def histogram(values: NDArray[np.float64], bins: int = 40) -> str:
    """The distribution of values in [0, 1], as a line of text with a bar for each of `bins` bins."""
    count = np.histogram(values, bins, (0, 1))[0]
    heights = np.ceil(count / max(count.max(), 1) * (len(BARS) - 1)).astype(int)
    return "0 " + "".join(BARS[height] for height in heights) + " 1"


def as_rows(table: MaskTable) -> list[dict[str, object]]:
    """A dict for each image, with the keys in COLUMNS and SORTS; unknown values are None."""
    rows = []
    for number in range(len(table)):
        row: dict[str, object] = {name: getattr(table, name)[number].item() for name in COLUMNS}
        for name, values in table.values.items():
            row[name] = None if np.isnan(values[number]) else float(values[number])
        rows.append(row)
    return rows


def as_grid(path: Path, table: MaskTable, name: str, columns: int, rows: int) -> Image.Image:
    """The first columns × rows images with their cores; the caption has row, group and value.

    Args:
        path: the masks.h5 of the table.
        name: one of SORTS.

    Raises:
        MacError: the table is empty.
    """
    from pipeline.results.pictures import as_rgb, input_pixels

    shown = table.first(columns * rows)
    if not len(shown):
        raise MacError(f"{path}: no image is left to draw")
    panels = []
    with graph.project(path.parent, masks=path).open("masks", "images", "erm") as given:
        pixels = as_rgb(input_pixels(given.file("images"), shown.row, given.model("erm").spec))
        cores = given.file("masks").rows("mask", shown.position)
    for number, (image, mask) in enumerate(zip(pixels, cores, strict=True)):
        caption = f"{shown.row[number]}: {shown.group[number]}, {shown.values[name][number]:.2f}"
        panels.append((caption, visual.overlay(image, mask)))
    return sheets.grid(panels, min(columns, len(panels)), SIDE)
