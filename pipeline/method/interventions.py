"""The two interventions on an image (paper equations 1 and 2), and its rest alone."""

import torch
from torch import Tensor


def masked(x: Tensor, m: Tensor, b: Tensor) -> Tensor:
    """Equation 1: the core of x on a plain background, m x + (1 − m) b. Each pixel is exactly that of x or b.

    Args:
        x: (B, 3, H, W) float, pixels in [0, 1] or normalised ones.
        m: (B, 1 or 3, H, W) of the same type, 1 in the core of x, else 0.
        b: (B, 3, 1 or H, 1 or W) of the same type, the fill.

    Returns:
        (B, 3, H, W).
    """
    return torch.lerp(b, x, m)


def rest(x: Tensor, m: Tensor, b: Tensor) -> Tensor:
    """The rest of x, without its core: (1 − m) x + m b. Shapes as in `masked`."""
    return torch.lerp(x, b, m)


def combined(x_i: Tensor, m_i: Tensor, x_j: Tensor, m_j: Tensor, b: Tensor) -> Tensor:
    """Equation 2, the core of i on the background of j: m_i x_i + (1 − m_i)(1 − m_j) x_j + (1 − m_i) m_j b.

    Shapes as in `masked`; j is the partner of i. In training it is of another class.
    """
    return torch.lerp(torch.lerp(x_j, b, m_j), x_i, m_i)
