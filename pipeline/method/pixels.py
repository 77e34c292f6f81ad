"""How many pixels the core has. PyTorch is not imported, so params.yaml is checked by it quickly."""

from pipeline.errors import MacError
from pipeline.params.cores import CoreParams


def pixel_count(top_k: float, size: int) -> int:
    """K in pixels: `top_k` itself; if it is below 1, that fraction of the size² pixels (at least one).

    Raises:
        MacError: `top_k` is neither a whole number nor in (0, 1), or it is more than size² pixels.
    """
    if not (0 < top_k < 1 or (top_k >= 1 and float(top_k).is_integer())):
        raise MacError(f"top_k: {top_k:g} should be a whole number of pixels, or a fraction in (0, 1)")
    k = int(top_k) if top_k >= 1 else max(1, round(top_k * size * size))
    if k > size * size:
        raise MacError(f"top_k: {k} pixels, but the input grid has only {size}² = {size * size}")
    return k


def core_pixels(params: CoreParams, size: int) -> int | None:
    """K in pixels, of which a core is left; None if each image has its own.

    Args:
        size: side of the input grid, pixels.

    Raises:
        MacError: `top_k` is more than the input grid has, or leaves no core.
    """
    if params.size == "knee":
        return None
    try:
        k = pixel_count(params.top_k, size)
    except MacError as error:
        raise MacError(f"saliency.{error}") from None
    if k == size**2 and params.side != "core":
        side = params.side
        raise MacError(f"saliency.top_k: with saliency.side '{side}', {k} of {size}² pixels leave no core")
    return k
