"""Grey of more than 8 bits: which values are black and white, and how they become 8 bits."""

import re
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags

from pipeline.params.dataset import Range

FULL = 65535  # white of 16 bits
DARK = 1 / 8  # images whose highest value is below this share of white are nearly black
DEEP_COLOURS = "16 bits for each colour, or for grey with alpha"
CUT = f"{DEEP_COLOURS}: the high 8 of them are used"
CUT_DARK = f"{CUT}, which are nearly black; save these images with 8 bits"
TOLD, PEAK = "told", "peak"  # keys of `Image.info`, see `Source.load`
_TAGS: dict[str, int] = {tag.name: code for code, tag in TiffTags.TAGS_V2.items()}
UNKNOWN_RANGE = "whose range the file does not declare (dataset.range can give it)"


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow's image has one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def packing(image: Image.Image) -> str:
    """How Pillow is going to unpack the file's values: `I;16B`, `RGB;16L` and the like.

    Args:
        image: opened, and not yet loaded.
    """
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))


def as_8_bits(image: Image.Image, file: BinaryIO, packed: str, white: Range) -> Image.Image:
    """Deep grey in 8 bits: 0 is black, and what the file declares or `white` says is white.

    Args:
        image: as Pillow loaded it.
        file: the file that it was loaded from, open.
        packed: its `packing`.

    Raises:
        ValueError: the range is not known, or values are not finite.
    """
    values = np.asarray(image)
    black: float = 0
    top: float | None = None
    if image.format == "PPM" and ";16" not in packed:
        top = FULL  # the header of a PGM has its white, by which Pillow has scaled the values
    elif white != "auto":
        top = white
    elif image.format == "PNG":
        top = _significant(file, values)
    elif image.format == "TIFF":
        black, top = _declared(image)
    info: dict[str | tuple[int, int], Any] = {}
    if top is None:
        top = _full(image, values)
        info[PEAK] = float(values.max())
    elif values.min() < black or values.max() > top:
        info[TOLD] = ["grey values beyond the range are black or white"]
    if image.format == "TIFF" and _tag(image, "PhotometricInterpretation") == 0:
        black, top = top, black  # there 0 is white, which Pillow leaves to its caller
    found = scaled(values, black, top)
    found.info = info
    return found


def scaled(values: NDArray[Any], black: float, white: float) -> Image.Image:
    """Values (H, W) or (H, W, 3) as 8 bits: `black` becomes 0, `white` 255; those beyond are clipped.

    Raises:
        ValueError: a value is not finite, or black and white are the same.
    """
    if black == white or not np.isfinite(values).all():
        raise ValueError("black and white are the same value, or a value is not finite")
    share = (values.astype(np.float32) - black) / (white - black)
    return Image.fromarray((share.clip(0, 1) * 255).round().astype(np.uint8))


def _full(image: Image.Image, values: NDArray[Any]) -> float:
    """White of a file that declares none: the highest value of its 16 bits.

    Raises:
        ValueError: there are more bits, or negative values, so that black and white are not known.
    """
    signed = image.format == "TIFF" and _tag(image, "SampleFormat") == 2
    if image.mode == "F":
        raise ValueError(f"it holds floating-point values, {UNKNOWN_RANGE}")
    if image.mode == "I" and image.format not in ("PNG", "PPM") and _tag(image, "BitsPerSample") != 16:
        raise ValueError(f"it holds 32-bit values, {UNKNOWN_RANGE}")
    if values.min() < 0:
        raise ValueError(f"it holds negative values, {UNKNOWN_RANGE}")
    return FULL >> 1 if signed else FULL


def _declared(image: Image.Image) -> tuple[float, float | None]:
    """Black and white as a TIFF declares them; white is None if it has all bits, or is not declared."""
    bits, description = _tag(image, "BitsPerSample"), str(_tag(image, "ImageDescription") or "")
    if ome := re.search(r'SignificantBits="(\d+)"', description):  # of microscopes' OME-TIFF
        bits = min(int(ome[1]), bits)
    black, white = _tag(image, "SMinSampleValue"), _tag(image, "SMaxSampleValue")
    white = _tag(image, "MaxSampleValue") if white is None else white
    if white is None and bits < 16:
        white = (1 << bits) - 1
    return float(black or 0), None if white in (None, FULL) else float(white)


def _significant(file: BinaryIO, values: NDArray[Any]) -> float | None:
    """White of a 16-bit PNG that declares fewer significant bits (sBIT), and whose values are so low.

    The standard has values scaled up to 16 bits; then white is 65535. Many programs leave them as they are. A
    dark image that is scaled up is told by its low bits, which are all 0.
    """
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IDAT":
            break
        if name == b"sBIT" and length == 1:
            bits = file.read(1)[0]
            if bits >= 16:
                break
            raw = bits > 0 and values.max() < 1 << bits and (values % (1 << (16 - bits))).any()
            return (1 << bits) - 1 if raw else FULL
        file.seek(length + 4, 1)
    return None


def _tag(image: Image.Image, name: str) -> Any:
    """The (first) value of a TIFF tag; None if the file has no such tag."""
    value = getattr(image, "tag_v2", {}).get(_TAGS[name])
    return value[0] if isinstance(value, tuple) else value
