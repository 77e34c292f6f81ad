"""True masks: which pixels are foreground, in the ways in which people store masks.

- Grey, 0 to 255: above 127 is foreground, as in CUB's segmentations, which show how far annotators agree.
- Numbers of objects or classes (0 and 1; VOC, COCO): all but 0 is foreground. 255 beside small numbers is
  VOC's void, the rim of an object: it counts as background, so it is never in a core.
  Not in JPEG and the like, where small numbers are noise.
- A palette of colours: its index, as above. Colours: all but black, and but VOC's colour for void.
- A cut-out: its alpha channel, if that is not the same everywhere.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.datasets.depth import TOLD
from pipeline.datasets.memory import announce
from pipeline.datasets.names import shortened
from pipeline.datasets.opening import open_picture, reading
from pipeline.datasets.sources import ImageFile, Source, to_stored
from pipeline.errors import MacError
from pipeline.setting import ToStored

VOID, VOID_COLOUR = 255, (224, 224, 192)
LEVEL = 51  # CUB's greys are multiples of it: five annotators
MANY = 64  # more different values are shades, not numbers of objects
FEW = 16  # so many values on both sides of 127 are rather numbers
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")  # small numbers would be noise: greys alone
SMALL = 4096  # greys of 16 bits are larger
ORIENTATION = 0x0112  # the EXIF tag
OR_GREYS = "the mask has few values, which may be numbers of objects or greys; they are read as {}"
EMPTY, ONLY = "have no foreground", "have nothing but foreground"
DOUBTFUL = "may be turned, since EXIF turns their images and they have the same size before and after"
SWAPS, KEEPS = (5, 6, 7, 8), (2, 3, 4)  # orientations that swap the sides, and those that do not


def load(mask: Source, image: Source, size: tuple[int, int], root: Path) -> Image.Image:
    """A true mask in mode L, of the size of its image: above 127 is foreground.

    Its `info` may have TOLD, as in `Source.load`.

    Args:
        size: of the image, upright.

    Raises:
        MacError: it cannot be read, or has another size than the image.
    """
    picture = opened(root / mask.name) if isinstance(mask, ImageFile) else foreground_of(mask.load(root))
    if picture.size == size:
        return picture
    found, expected = (f"{width} x {height}" for width, height in (picture.size, size))
    remedy = "give it the size of the image"
    if (
        picture.size == size[::-1]
        and isinstance(image, ImageFile)
        and _orientation(root / image.name) in SWAPS
    ):
        remedy = (
            "the image is turned by its EXIF orientation, and the mask was drawn before that; turn the mask "
            "in the same way"
        )
    raise MacError(
        f"{root / mask.name}: the mask is {found} pixels and its image {image.name} {expected}; {remedy}"
    )


def opened(file: Path, or_else: str = "take it out of the metadata") -> Image.Image:
    """The foreground of a mask file, upright: as `load`, of any size.

    Args:
        or_else: what else can be done than to replace the file, for the message.

    Raises:
        MacError: it cannot be read.
    """
    with reading(file, or_else), open_picture(file) as image:
        announce(image.width * image.height)
        is_lossy = image.format in LOSSY
        ImageOps.exif_transpose(image, in_place=True)  # also loads it
        if image.mode == "F" and not np.isin(np.asarray(image), (0, 1)).all():
            raise ValueError("it holds floating-point values other than 0 and 1")
        image.info = {key: value for key, value in image.info.items() if key == "transparency"}
        return foreground_of(image, is_lossy)


def stored(mask: Image.Image, side: int, how: ToStored) -> NDArray[np.bool_]:
    """A mask of `load` or `opened` at the stored size, (side, side): scaled as its image is."""
    return np.asarray(to_stored(mask, side, how)) > 127


def foreground_of(mask: Image.Image, is_lossy: bool = False) -> Image.Image:
    """A mask of any mode in mode L: above 127 is foreground. Greys are kept as they are.

    Args:
        is_lossy: from a JPEG or the like.

    Raises:
        ValueError: its colours do not say which of them is the background.
    """
    if mask.mode == "1":
        return mask.convert("L")
    if mask.mode == "F" or mask.mode.startswith("I"):
        return _of_wide(np.asarray(mask).astype(np.int64))
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        if len(set(alpha.getextrema())) > 1:
            return _of_grey(alpha)
    if is_lossy:
        return mask.convert("L")
    if mask.mode == "P" and _is_coloured(mask):
        return _of_index(mask)
    if mask.mode not in ("L", "LA", "P") and (found := _of_colours(mask.convert("RGB"))) is not None:
        return found
    return _of_grey(mask.convert("L"))


def _of_grey(grey: Image.Image) -> Image.Image:
    """Numbers of objects to black and white; greys as they are."""
    count = dict(enumerate(grey.histogram()))
    objects = [number for number, pixels in count.items() if pixels and number not in (0, VOID)]
    if not objects or len(objects) > MANY:
        return grey
    if not any(number % LEVEL for number in objects):
        return grey
    has_void, are_few = count[VOID] > 0, len(objects) <= FEW
    are_small = max(objects) < (LEVEL if has_void else 128)
    are_numbers = are_small or (are_few and not has_void)
    found = _black_and_white(np.isin(np.asarray(grey), objects)) if are_numbers else grey
    if are_few and not are_small and (has_void or min(objects) < 128):
        found.info = {TOLD: [OR_GREYS.format("numbers" if are_numbers else "greys")]}
    return found


def _of_wide(values: NDArray[np.int64]) -> Image.Image:
    """Numbers of more than 8 bits, (h, w): if they are few and small, of objects, else greys up to 65535."""
    if values.min() >= 0 and values.max() <= 255:
        return _of_grey(Image.fromarray(values.astype(np.uint8)))
    if values.max() < SMALL and len(np.unique(values)) <= MANY:
        return _black_and_white(values > 0)
    return Image.fromarray((values.clip(0, 65535) / 257).round().astype(np.uint8))


def _of_index(mask: Image.Image) -> Image.Image:
    """A palette of colours: black, or else index 0, is background; 255 beside other indices is void."""
    index, colours = np.asarray(mask), _palette(mask)
    black = [number for number in np.unique(index).tolist() if colours.get(number) == (0, 0, 0)]
    background = {0} if colours.get(0) == (0, 0, 0) or not black else set(black)
    objects = set(np.unique(index).tolist()) - background
    if len(objects) > 1:
        objects.discard(VOID)
    return _black_and_white(np.isin(index, sorted(objects)))


def _of_colours(mask: Image.Image) -> Image.Image | None:
    """Colours on black to white on black; None if they are greys or shades.

    Raises:
        ValueError: nothing is black.
    """
    found = mask.getcolors(MANY)
    colours = [colour for _, colour in found or [] if isinstance(colour, tuple)]
    if all(len(set(colour)) == 1 for colour in colours):
        return None
    if (0, 0, 0) not in colours and len(colours) > 1:
        raise ValueError("no colour in it is black, so which one is the background is not known")
    pixels = np.asarray(mask)
    is_void = (pixels == VOID_COLOUR).all(-1) if len(colours) > 2 else np.zeros(pixels.shape[:2], np.bool_)
    return _black_and_white(pixels.any(-1) & ~is_void)


def _is_coloured(mask: Image.Image) -> bool:
    colours = _palette(mask)
    return any(
        len(set(colours.get(number, (0, 0, 0)))) > 1 for number in np.unique(np.asarray(mask)).tolist()
    )


def _palette(mask: Image.Image) -> dict[int, tuple[int, ...]]:
    palette = mask.getpalette("RGB") or []
    return {number: tuple(palette[3 * number : 3 * number + 3]) for number in range(len(palette) // 3)}


def _black_and_white(foreground: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(foreground.astype(np.uint8) * 255)


def is_doubtful(mask: Source | None, image: Source, root: Path) -> bool:
    """Whether EXIF turns an image, and its mask fits before and after: it may have been drawn on either."""
    if not isinstance(mask, ImageFile) or not isinstance(image, ImageFile):
        return False
    orientation = _orientation(root / image.name)
    if orientation in SWAPS:
        width, height = _size(root / image.name)
        orientation = KEEPS[0] if width == height else 1
    return orientation in KEEPS and _orientation(root / mask.name) == 1


def _orientation(file: Path) -> int:
    """The EXIF orientation of an image file, from 1 to 8; 1 if it has none."""
    try:
        with open_picture(file) as image:
            if image.format == "PNG" and "exif" not in image.info:  # looking further would decode it
                return 1
            found = image.getexif().get(ORIENTATION, 1)
            return int(found) if isinstance(found, int) else 1
    except Exception:  # whatever is wrong, decoding it says so
        return 1


def _size(file: Path) -> tuple[int, int]:
    with open_picture(file) as image:
        return image.size


def oddities(foreground: NDArray[np.bool_], doubtful: NDArray[np.bool_]) -> list[str]:
    """What is odd about each mask, in words; empty if nothing is.

    Args:
        foreground: (n, h, w).
        doubtful: (n,), from `is_doubtful`.
    """
    filled = foreground.any((1, 2))
    found = np.where(doubtful, DOUBTFUL, np.where(foreground.all((1, 2)), ONLY, ""))
    return [str(each) for each in np.where(filled, found, EMPTY)]


def told(labels: Sequence[str], odd: Sequence[str]) -> str:
    """The masks with something odd, counted by class, in one line; empty if there are none.

    Args:
        labels: the class of each image.
        odd: what is odd about its mask, from `oddities`; empty if it has none.
    """
    said = []
    for what in sorted(set(odd) - {""}):
        count = Counter(label for label, each in zip(labels, odd, strict=True) if each == what)
        classes = shortened([f"{label} {number}" for label, number in sorted(count.items())])
        said.append(f"{count.total()} {what} ({', '.join(classes)})")
    return f"true masks: {'; '.join(said)}" if said else ""
