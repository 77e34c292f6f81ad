"""How many pixels are the core: up to where ERM recognises the image by them (adaptive masking of DaC).

DaC is Noohdani et al. 2024, "Decompose-and-Compose". The quantiles, the knee and the fallback are those of
its published code (fhn98/DaC, adaptive_mask.py).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.method import interventions, pairing
from pipeline.method.masks import top_k_mask, upsample
from pipeline.method.pixels import pixel_count
from pipeline.network.classifier import Classifier

QUANTILES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FALLBACK = 0.8  # where there is no knee


@dataclass(frozen=True)
class Knees:
    """The highest pixels of each map, and how many they are.

    Attributes:
        mask: (B, S, S) bool.
        quantile: (B,) float32, the q of each image: the mask is all pixels above the q-quantile of the map,
            so it has the share 1 − q of them.
        found: (B,) bool, whether q is at a knee; if not, it is FALLBACK.
    """

    mask: Tensor
    quantile: NDArray[np.float32]
    found: NDArray[np.bool_]


def at_knee(model: Classifier, grid: Tensor, maps: Tensor, target: Tensor) -> Knees:
    """For each image, the mask whose size is at the knee of ERM's loss on the core alone.

    For each q of QUANTILES, the core is the (1 − q) S² highest pixels of the map, rounded; if scores are
    equal, the pixel with the lower index comes first. The other pixels are filled with the image's own mean
    colour (DaC: with ImageNet's). The loss is the cross-entropy of the class that the map explains. It grows
    with q, as the core gets smaller; the core is about as small as it can be before the loss rises steeply.

    Args:
        grid: (B, 3, S, S) uint8.
        maps: (B, h, w) float, raw maps.
        target: (B,) int64, the class that each map explains.
    """
    size = grid.shape[-1]
    scores, x, fill = upsample(maps, size), model.input(grid), mean_colour(model, grid)
    masks = torch.stack([top_k_mask(scores, pixel_count(1 - q, size)) for q in QUANTILES])  # (Q, B, S, S)
    losses = []
    for mask in masks:
        logits = model(interventions.masked(x, mask[:, None].to(x.dtype), fill))
        losses.append(F.cross_entropy(logits.float(), target, reduction="none"))
    knees = [knee_of(curve) for curve in torch.stack(losses, 1).double().cpu().numpy()]
    quantile = [FALLBACK if knee is None else knee for knee in knees]
    chosen = torch.tensor([QUANTILES.index(q) for q in quantile], device=masks.device)
    return Knees(
        mask=masks[chosen, torch.arange(len(chosen), device=masks.device)],
        quantile=np.array(quantile, np.float32),
        found=np.array([knee is not None for knee in knees]),
    )


def mean_colour(model: Classifier, grid: Tensor) -> Tensor:
    """The mean of each channel of each image, as the network's input, (B, 3, 1, 1)."""
    return model.input(pairing.channel_mean(grid)[:, :, None, None])


def knee_of(losses: NDArray[np.float64]) -> float | None:
    """The quantile at the knee of the losses at QUANTILES, (Q,); None if there is none.

    It is that of Satopää et al. 2011, "Finding a Kneedle in a Haystack", for a convex, increasing curve.
    """
    from kneed import KneeLocator  # here, since it imports pyplot, which takes long

    with np.errstate(invalid="ignore"):  # losses that are all equal have no knee
        located = KneeLocator(QUANTILES, losses, S=1.0, curve="convex", direction="increasing", online=True)
    return None if located.knee is None else float(located.knee)
