"""The images of a masks.h5 as a table: how sure ERM is, where MaC disagrees, what the mask covers; sorted, filtered, as pictures.

What needs torch is imported where it is used.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from pipeline import store
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.results import sheets, visual
from pipeline.results.scores import head_logits

SORTS = {
    "coverage": "share of the true foreground that the mask covers, lowest first",
    "confidence": "ERM's probability of the image's class, lowest first",
    "disagreement": "how far MaC's probability of the image's class is from ERM's, farthest first",
    "iou": "overlap with the mask of the other file, lowest first",
}
COLUMNS = ("row", "path", "group", "target", "erm", "mac", "right")  # of the table as it is written, and SORTS
BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Table:
    """A row an image of masks.h5.

    Attributes:
        sample: (n,) position in masks.h5. row: (n,) of images.h5.
        path, group, target, erm, mac: (n,) text; the last two are the classes that the heads see.
        right: (n,) whether ERM is right.
        values: (n,) float of each of SORTS; NaN where it is not known.
    """

    sample: NDArray[np.int64]
    row: NDArray[np.int64]
    path: NDArray[np.str_]
    group: NDArray[np.str_]
    target: NDArray[np.str_]
    erm: NDArray[np.str_]
    mac: NDArray[np.str_]
    right: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, chosen: NDArray[np.int64]) -> "Table":
        """These rows in this order."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name)[chosen] for field in fields(self) if field.name != "values"}
        return Table(**parts, values={name: values[chosen] for name, values in self.values.items()})

    def by(self, name: str) -> "Table":
        """Sorted as SORTS says; what is not known comes last, equal ones in row order."""
        values = -self.values[name] if name == "disagreement" else self.values[name]
        if np.isnan(values).all() and len(self):
            remedy = {"coverage": "the dataset has no true masks", "iou": "give --against"}.get(name, "its figures are not finite")
            raise MacError(f"--sort {name}: not known of any image; {remedy}")
        return self.take(np.argsort(values, kind="stable"))


def browse(masks_path: Path, against: Path | None = None, coverage: bool = True) -> Table:
    """The table of a masks.h5; images.h5, features.h5, erm/ and retrained/ are those beside it.

    Args:
        against: another masks.h5 of the same images.
        coverage: whether it is to be known, for which all masks are read.

    Raises:
        MacError: something is missing, or does not belong together.
    """
    with ExitStack() as stack:
        masks = stack.enter_context(store.open_artefact(masks_path, "masks"))
        images = stack.enter_context(store.open_artefact(masks_path.with_name("images.h5"), "images"))
        masks.provenance.require("masks", masks_path, {"images": images.digest})
        made_from = {"images": images.digest, "masks": masks.digest}
        features = stack.enter_context(store.open_artefact(masks_path.with_name("features.h5"), "features", made_from))
        erm = store.open_model(masks_path.with_name("erm"), "erm", {"images": images.digest})
        retrained = store.open_model(masks_path.with_name("retrained"), "retrained", {"features": features.digest, "erm": erm.digest})
        groups, label, rows = Groups.of(images), features["train/label"][:], masks["row"][:]
        x = features["train/original"][:]
        logits = (head_logits(x, *folder.head()) for folder in (erm, retrained))
        before, after = (softmax(each.astype(np.float64), -1) for each in logits)
        described = groups.described(label, features["train/attribute"][:])
        classes, of_label = np.array(groups.classes), (np.arange(len(label)), label)
        return Table(
            sample=np.arange(len(rows)),
            row=rows,
            path=np.array([path.decode() for path in images.rows("path", rows)]),
            group=np.array(described.names)[described.index],
            target=classes[masks["target"][:]],
            erm=classes[before.argmax(1)],
            mac=classes[after.argmax(1)],
            right=before.argmax(1) == label,
            values={
                "coverage": _coverage(images, masks) if coverage else np.full(len(rows), np.nan),
                "confidence": before[of_label],
                "disagreement": np.abs(after[of_label] - before[of_label]),
                "iou": np.full(len(rows), np.nan) if against is None else _overlap(images, masks, against),
            },
        )


def _coverage(images: store.Artefact, masks: store.Artefact) -> NDArray[np.float64]:
    from pipeline.results.coverage import shares

    found: NDArray[np.float64] = shares(images, masks)[2]
    return found


def _overlap(images: store.Artefact, masks: store.Artefact, against: Path) -> NDArray[np.float64]:
    """Overlap (intersection over union) of every mask with the other file's mask of that image; NaN where it has none."""
    from pipeline.results.coverage import in_blocks

    rows = masks["row"][:]
    overlap = np.full(len(rows), np.nan)
    with store.open_artefact(against, "masks", {"images": images.digest}) as other:
        if other["mask"].shape[1:] != masks["mask"].shape[1:]:
            raise MacError(f"{against}: its masks are {other['mask'].shape[1:]}, those of {masks.path} {masks['mask'].shape[1:]}")
        _, ours, theirs = np.intersect1d(rows, other["row"][:], assume_unique=True, return_indices=True)
        if not len(ours):
            raise MacError(f"{against}: has none of the images of {masks.path}")
        for part in in_blocks(np.arange(len(ours))):
            mine, yours = masks.rows("mask", ours[part]), other.rows("mask", theirs[part])
            overlap[ours[part]] = (mine & yours).sum((1, 2)) / np.maximum((mine | yours).sum((1, 2)), 1)
    return overlap


def as_text(table: Table, name: str, limit: int) -> str:
    """How `name` is distributed, its mean in every group, and the first images."""
    values = table.values[name]
    found = values[~np.isnan(values)]
    lines = [f"{len(table)} images, {name}: {SORTS[name]}", histogram(found), ""]
    lines += [f"{'group':<28}{'n':>7}{'mean':>9}{'lowest':>9}{'highest':>9}"]
    for group in np.unique(table.group):
        of_group = values[(table.group == group) & ~np.isnan(values)]
        if len(of_group):
            lines.append(f"{group:<28}{len(of_group):>7}{of_group.mean():>9.3f}{of_group.min():>9.3f}{of_group.max():>9.3f}")
    shown = table.take(np.arange(min(limit, len(table))))
    lines += ["", f"{'row':>7}{name:>14}  {'group':<28}{'ERM':<16}{'MaC':<16}path"]
    for number in range(len(shown)):
        cells = f"{shown.row[number]:>7}{shown.values[name][number]:>14.3f}  {shown.group[number]:<28}"
        lines.append(f"{cells}{shown.erm[number]:<16}{shown.mac[number]:<16}{shown.path[number]}")
    return "\n".join(lines)


def histogram(values: NDArray[np.float64], bins: int = 40) -> str:
    """How values of 0 to 1 are distributed, in a line of text: a bar for each fortieth."""
    count = np.histogram(values, bins, (0, 1))[0]
    heights = np.ceil(count / max(count.max(), 1) * (len(BARS) - 1)).astype(int)
    return "0 " + "".join(BARS[height] for height in heights) + " 1"


def as_rows(table: Table) -> list[dict[str, object]]:
    """Each image as a dict; None for what is not known."""
    rows = []
    for number in range(len(table)):
        row: dict[str, object] = {name: getattr(table, name)[number].item() for name in COLUMNS}
        rows.append(row | {name: None if np.isnan(v[number]) else float(v[number]) for name, v in table.values.items()})
    return rows


def as_grid(masks_path: Path, table: Table, name: str, columns: int, rows: int) -> Image.Image:
    """The first columns × rows images with their cores, under group and value."""
    from pipeline.results.coverage import input_grid

    shown = table.take(np.arange(min(columns * rows, len(table))))
    if not len(shown):
        raise MacError(f"{masks_path}: no image is left to draw")
    panels = []
    with store.open_artefact(masks_path, "masks") as masks, store.open_artefact(masks_path.with_name("images.h5"), "images") as images:
        for number in range(len(shown)):
            pixels = input_grid(images, images["image"][int(shown.row[number])][None])[0].permute(1, 2, 0).numpy()
            caption = f"{shown.row[number]}: {shown.group[number]}, {shown.values[name][number]:.2f}"
            panels.append((caption, visual.overlay(pixels, masks["mask"][int(shown.sample[number])])))
    return sheets.grid(panels, min(columns, len(panels)), 176)
