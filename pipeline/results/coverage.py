"""How maps and masks lie on the true foregrounds, group by group (paper Table 1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.method import masks as cores
from pipeline.metrics import Groups
from pipeline.network.inputs import to_input_grid
from pipeline.store import Artefact

READ_ROWS = 512


@dataclass(frozen=True)
class GroupCoverage:
    """One row of Table 1; means over the `n` images of a group whose true mask is known, NaN where n is 0.

    Attributes:
        map_fg, map_bg: mean of the map inside and outside the true mask; the map rectified and its highest value made 1.
        mask_fg, mask_bg: share of the true foreground, and of the rest, that the mask covers.
    """

    group: str
    n: int
    map_fg: float
    map_bg: float
    mask_fg: float
    mask_bg: float


def shares(images: Artefact, masks: Artefact) -> NDArray[np.float64]:
    """map_fg, map_bg, mask_fg and mask_bg of every image of masks.h5, (4, M); NaN where they are not known."""
    rows = masks["row"][:]
    known = images["has_foreground"][:][rows] if "has_foreground" in images else np.zeros(len(rows), np.bool_)
    found = np.full((4, len(rows)), np.nan)
    for samples in in_blocks(np.flatnonzero(known)):
        foreground = input_grid(images, images.rows("foreground", rows[samples]))
        mask = torch.from_numpy(masks.rows("mask", samples))
        heights = cores.upsample(torch.from_numpy(masks.rows("cam", samples)), mask.shape[-1]).relu().double()
        heights /= heights.flatten(1).amax(1).clamp(min=1e-12)[:, None, None]
        inside, outside = foreground.double(), (~foreground).double()
        on_map = [(heights * part).sum((1, 2)) / part.sum((1, 2)) for part in (inside, outside)]
        found[:, samples] = torch.stack([*on_map, *cores.coverage(mask, foreground)]).numpy()
    return found


def coverage(images: Artefact, masks: Artefact) -> list[GroupCoverage]:
    """A row for every group of the retraining set."""
    groups, rows = Groups.of(images), masks["row"][:]
    described = groups.described(images["label"][:][rows], images["attribute"][:][rows])
    found = shares(images, masks)
    whole = ~np.isnan(found).any(0)
    table = []
    for g, name in enumerate(described.names):
        of_group = found[:, whole & (described.index == g)]
        means = of_group.mean(1).tolist() if of_group.size else [float("nan")] * 4
        table.append(GroupCoverage(name, of_group.shape[1], *means))
    return table


def input_grid(images: Artefact, stored: NDArray[np.generic]) -> torch.Tensor:
    """Stored pixels or foregrounds of images.h5 to the input grid."""
    params = images.provenance.params
    return to_input_grid(torch.from_numpy(stored), params["input_size"], params["to_input"])


def in_blocks(samples: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions cut into runs of 512, which masks are read in."""
    for start in range(0, len(samples), READ_ROWS):
        yield samples[start : start + READ_ROWS]
