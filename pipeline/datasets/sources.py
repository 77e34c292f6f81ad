"""Where an image's pixels come from: a file in the dataset's folder, or pixels that a reader has made."""

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.datasets.memory import announce
from pipeline.errors import MacError, first_line
from pipeline.params.dataset import ToStored
from pipeline.store import regular

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class Source(Protocol):
    """An image or a mask.

    Attributes:
        name: its name in images.h5 and in messages. For a file: the path relative to the dataset's folder.
    """

    @property
    def name(self) -> str: ...

    def load(self, root: Path) -> Image.Image:
        """The picture, upright, in an 8-bit mode.

        Raises:
            MacError: it cannot be read as an image.
        """

    def stamp(self, root: Path) -> object:
        """A value that changes when the pixels change, found without reading a file's pixels.

        Unfinished work is continued only if the value is the same.
        """


@dataclass(frozen=True)
class ImageFile:
    """An image file below the dataset's folder (see `inside`)."""

    name: str

    def load(self, root: Path) -> Image.Image:
        return open_image(root / self.name)

    def stamp(self, root: Path) -> object:
        try:
            status = (root / self.name).stat()
        except OSError:
            return None  # `load` reports what is wrong
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels in memory: pieces of the same width, one below the other, each (h, w, 3) or (h, w) uint8."""

    name: str
    pieces: tuple[NDArray[np.uint8], ...]

    def load(self, root: Path) -> Image.Image:
        return Image.fromarray(np.concatenate(self.pieces))

    def stamp(self, root: Path) -> object:
        return [zlib.crc32(piece.tobytes()) for piece in self.pieces]


def open_image(file: Path) -> Image.Image:
    """An image file, decoded.

    Its EXIF orientation is applied. Only the first frame of an animation is used. 16-bit grey is scaled to
    8 bits.

    Raises:
        MacError: the file cannot be read as an image.
    """
    try:
        image: Image.Image
        with regular(file) as opened, Image.open(opened) as image:
            announce(image.width * image.height)
            ImageOps.exif_transpose(image, in_place=True)  # also loads it; a copy takes as long as scaling
        if image.mode == "F":
            raise ValueError("it holds floating-point values, whose range is not known")
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        ValueError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, UnidentifiedImageError):
            reason = "no known format of images"
        remedy = "replace it, or take its row out of the metadata"
        raise MacError(f"{file}: cannot be read as an image ({reason}); {remedy}") from None
    return image


def to_stored(picture: Image.Image, side: int, how: ToStored) -> Image.Image:
    """A picture at the stored size, bilinear and antialiased.

    `squash` scales both sides; `center_crop` first takes the largest square in the middle.
    """
    if how == "center_crop":
        return ImageOps.fit(picture, (side, side), Image.Resampling.BILINEAR)
    return picture.resize((side, side), Image.Resampling.BILINEAR)


def stored_image(picture: Image.Image, side: int, how: ToStored) -> NDArray[np.uint8]:
    """A picture in any mode as RGB at the stored size, (side, side, 3).

    The alpha channel is ignored, as in torchvision's ImageFolder.
    """
    in_colour = picture if picture.mode == "RGB" else picture.convert("RGB")
    return np.asarray(to_stored(in_colour, side, how))


def image_files(folder: Path, remedy: str) -> list[Path]:
    """Every image file below `folder`, except hidden ones: paths relative to the folder, sorted.

    Raises:
        MacError: no such folder.
    """
    if not folder.is_dir():
        raise MacError(f"{folder}: no such folder; {remedy}")
    found = []
    for path in folder.rglob("*"):
        file = path.relative_to(folder)
        is_hidden = any(name.startswith(".") for name in file.parts)
        if path.suffix.lower() in SUFFIXES and not is_hidden and path.is_file():
            found.append(file)
    return sorted(found)


def check_name(path: str, where: str) -> None:
    """Check that the names in a path are UTF-8 text, so that they can be written into artefacts and tables.

    Raises:
        MacError: they have other bytes, which Python shows as lone surrogates.
    """
    if not path.isascii() and any("\ud800" <= letter <= "\udfff" for letter in path):
        raise MacError(f"{where}: the name '{path}' is not UTF-8 text; rename this file or folder")


def inside(root: Path, relative: str, where: str) -> str:
    """`relative` itself, if it stays within `root`; `where` starts the message.

    Raises:
        MacError: an absolute path, `..`, or a symbolic link that leads out.
    """
    check_name(relative, where)
    path = root / relative
    try:
        if "\0" in relative:
            raise ValueError("a null character")
        real = path.resolve() if ".." in path.parts or path.is_symlink() else _real(path.parent) / path.name
        stays = real.is_relative_to(_real(root))
    except (ValueError, OSError, RuntimeError) as error:  # or the name is too long, or links form a loop
        raise MacError(f"{where}: path {relative!r} is no path ({first_line(error)})") from None
    if not stays:
        raise MacError(
            f"{where}: path '{relative}' leaves the dataset's folder {root}; give paths below that folder"
        )
    return relative


@lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    """The real path of a folder. It is cached, because datasets have many more files than folders."""
    return folder.resolve()
