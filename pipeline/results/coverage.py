"""How well maps and masks cover the true foregrounds, by group (paper Table 1)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.method.masks import coverage, upsample
from pipeline.metrics import Groups
from pipeline.network.inputs import InputSpec, to_input_grid
from pipeline.results.blocks import in_blocks
from pipeline.store import Artefact


@dataclass(frozen=True)
class GroupCoverage:
    """One row of Table 1: means over the `n` images of a group whose true mask is known; NaN if n is 0.

    Attributes:
        map_fg, map_bg: mean of the map inside and outside the true mask. The map is first rectified and
            divided by its highest value.
        mask_fg, mask_bg: share of the true foreground, and of the true background, that the mask covers.
    """

    group: str
    n: int
    map_fg: float
    map_bg: float
    mask_fg: float
    mask_bg: float


def shares(images: Artefact, masks: Artefact, spec: InputSpec) -> NDArray[np.float64]:
    """map_fg, map_bg, mask_fg and mask_bg of every image of masks.h5.

    Args:
        images: images.h5.
        masks: masks.h5.
        spec: from the stored size to the input grid; the same as for the maps.

    Returns:
        (4, M) float64; NaN if the true mask is not known.
    """
    rows = masks["row"][:]
    known = images["has_foreground"][:][rows] if "has_foreground" in images else np.zeros(len(rows), np.bool_)
    found = np.full((4, len(rows)), np.nan)
    if not known.any():
        return found
    for positions in in_blocks(np.flatnonzero(known), images["foreground"], masks["mask"]):
        stored = torch.from_numpy(images.rows("foreground", rows[positions]))
        foreground = to_input_grid(stored, spec)
        mask = torch.from_numpy(masks.rows("mask", positions))
        heights = _heights(torch.from_numpy(masks.rows("cam", positions)), mask.shape[-1])
        on_map = [_mean(heights, foreground), _mean(heights, ~foreground)]
        found[:, positions] = torch.stack([*on_map, *coverage(mask, foreground)]).numpy()
    return found


def _heights(maps: Tensor, side: int) -> Tensor:
    """Raw maps (B, h, w) to (B, side, side) float64, rectified; the highest value of each map is 1."""
    heights = upsample(maps, side).relu().double()
    return heights / heights.flatten(1).amax(1).clamp(min=1e-12)[:, None, None]


def _mean(heights: Tensor, region: Tensor) -> Tensor:
    """Mean of (B, H, W) over a region (B, H, W) bool: (B,), NaN if the region is empty."""
    inside = region.double()
    return (heights * inside).sum((1, 2)) / inside.sum((1, 2))


def by_group(images: Artefact, masks: Artefact, spec: InputSpec) -> list[GroupCoverage]:
    """The means of `shares` for every group of the retraining set: the rows of Table 1."""
    rows = masks["row"][:]
    described = Groups.of(images).described(images["label"][:][rows], images["attribute"][:][rows])
    found = shares(images, masks, spec)
    whole = ~np.isnan(found).any(0)
    table = []
    for group, name in enumerate(described.names):
        of_group = found[:, whole & (described.index == group)]
        means = of_group.mean(1).tolist() if of_group.size else [float("nan")] * 4
        table.append(GroupCoverage(name, of_group.shape[1], *means))
    return table
