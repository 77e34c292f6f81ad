"""From a raw map to the mask of the core: upsample, take the K highest pixels (paper section 3.2)."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def upsample(maps: Tensor, size: int) -> Tensor:
    """(B, h, w) float32 to (B, size, size), bilinear, align_corners=False."""
    return F.interpolate(maps[:, None].float(), (size, size), mode="bilinear", align_corners=False)[:, 0]


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """The K highest pixels of each map. If scores are equal, the pixel with the lower index comes first.

    Pixels are compared with the K-th highest score. If too many are equal to it, the first ones are taken. So
    the mask is the same on every device. A sort would order equal scores differently on each device.

    Args:
        scores: (B, H, W) float, not rectified, no NaN.
        k: 1 ≤ K ≤ H·W.

    Returns:
        (B, H, W) bool with exactly K True each.
    """
    flat = scores.flatten(1)
    threshold = flat.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    mask = flat >= threshold
    crowded = mask.sum(1) > k
    if crowded.any():
        above, tied = flat[crowded] > threshold[crowded], flat[crowded] == threshold[crowded]
        missing = k - above.sum(1, keepdim=True)
        mask[crowded] = above | (tied & (tied.cumsum(1) <= missing))
    return mask.view_as(scores)


def highest(scores: Tensor, pixels: NDArray[np.int64]) -> Tensor:
    """As `top_k_mask`, with a K for each map, (B,)."""
    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    for k in np.unique(pixels):
        same = torch.from_numpy(pixels == k).to(scores.device)
        mask[same] = top_k_mask(scores[same], int(k))
    return mask


def coverage(mask: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of the foreground and of the background that the mask covers.

    These are Mask/FG and Mask/BG in the paper's Table 1.

    Args:
        mask, foreground: (B, H, W) bool on the same grid.

    Returns:
        Two (B,) float64 in [0, 1]; NaN where there is no foreground, or no background.
    """
    inside = (mask & foreground).sum((1, 2)).double()
    outside = (mask & ~foreground).sum((1, 2)).double()
    return inside / foreground.sum((1, 2)), outside / (~foreground).sum((1, 2))
