"""The two interventions on an image (paper equations 1 and 2)."""

import torch
from torch import Tensor


def masked(x: Tensor, m: Tensor, b: Tensor) -> Tensor:
    """Equation 1, blank out the rest: m x + (1 − m) b.

    Args:
        x: (B, 3, H, W) float in [0, 1].
        m: (B, 1, H, W) bool, the core of x.
        b: (B, 3, 1, 1) float in [0, 1], the fill.

    Returns:
        (B, 3, H, W) float.
    """
    return torch.where(m, x, b)


def combined(x_i: Tensor, m_i: Tensor, x_j: Tensor, m_j: Tensor, b: Tensor) -> Tensor:
    """Equation 2, the core of i on the background of j: m_i x_i + (1 − m_i)(1 − m_j) x_j + (1 − m_i) m_j b.

    Shapes as in `masked`; j is the partner of i, of another class.
    """
    return torch.where(m_i, x_i, torch.where(m_j, b, x_j))
