"""Where an image's pixels come from: a file, a member of a tar file, or pixels that a reader has made."""

import io
import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.datasets.depth import CUT, CUT_BITS, CUT_DARK, DARK, FULL, TOLD, as_8_bits, is_deep, packing
from pipeline.datasets.dicom import is_dicom, read_dicom
from pipeline.datasets.memory import announce
from pipeline.datasets.opening import identified, reading
from pipeline.errors import MacError, first_line
from pipeline.setting import Interpolation, Range, ToStored
from pipeline.store import regular

# What Pillow reads; HEIC, which pillow-heif reads; and DICOM, which pydicom reads.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".qoi", ".avif", ".avifs", ".heic"}
    | {".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".dcm"}
)


class Source(Protocol):
    """An image or a mask.

    Attributes:
        name: its name in images.h5 and in messages. For a file: the path relative to the dataset's folder.
    """

    @property
    def name(self) -> str: ...

    def load(self, root: Path, white: Range = "auto") -> Image.Image:
        """The picture, upright, loaded, in mode RGB, L or 1.

        Its `info` may have TOLD, what to tell about how it was read (a list of texts); and PEAK, the highest
        value if it has 16 bits and declares no range (a float).

        Args:
            white: `dataset.range`.

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

    def load(self, root: Path, white: Range = "auto") -> Image.Image:
        return open_image(root / self.name, white)

    def stamp(self, root: Path) -> object:
        try:
            status = (root / self.name).stat()
        except OSError:
            return None  # `load` reports what is wrong
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class TarMember:
    """An image file in a tar file below the dataset's folder: `size` bytes from `start` on."""

    tar: str
    member: str
    start: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.tar}/{self.member}"

    def load(self, root: Path, white: Range = "auto") -> Image.Image:
        with reading(root / self.name, "take it out of the tar file"), regular(root / self.tar) as opened:
            opened.seek(self.start)
            return _opened(root / self.name, _Member(opened.read(self.size), str(root / self.name)), white)

    def stamp(self, root: Path) -> object:
        return ImageFile(self.tar).stamp(root), self.start, self.size


class _Member(io.BytesIO):
    """The bytes of a file, with its name for messages."""

    def __init__(self, contents: bytes, name: str) -> None:
        super().__init__(contents)
        self.name = name


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels in memory: pieces of the same width, one below the other, each (h, w, 3) or (h, w) uint8."""

    name: str
    pieces: tuple[NDArray[np.uint8], ...]

    def load(self, root: Path, white: Range = "auto") -> Image.Image:
        return Image.fromarray(np.concatenate(self.pieces))

    def stamp(self, root: Path) -> object:
        return [zlib.crc32(piece.tobytes()) for piece in self.pieces]


def open_image(file: Path, white: Range = "auto") -> Image.Image:
    """An image file, decoded.

    Its EXIF orientation is applied. Only the first frame of an animation is used. Grey of more than 8 bits is
    scaled to 8 bits.

    Args:
        white: the value of such grey that becomes white (`dataset.range`).

    Returns:
        As `Source.load`.

    Raises:
        MacError: the file cannot be read as an image.
    """
    with reading(file, "take its row out of the metadata"), regular(file) as opened:
        return _opened(file, opened, white)


def _opened(file: Path, opened: BinaryIO, white: Range) -> Image.Image:
    return read_dicom(opened, white) if is_dicom(file, opened) else _decoded(opened, white)


def _decoded(opened: BinaryIO, white: Range) -> Image.Image:
    """An image file that Pillow reads, in an 8-bit mode."""
    image: Image.Image
    with identified(opened) as image:
        announce(image.width * image.height * (4 if is_deep(image) else 1))
        packed, info = packing(image), dict[str | tuple[int, int], Any]()
        ImageOps.exif_transpose(image, in_place=True)  # also loads it; a copy takes as long as scaling
    if is_deep(image):
        return as_8_bits(image, opened, packed, white)
    if ";16" in packed:
        if white not in ("auto", FULL):
            raise ValueError(f"it has {CUT_BITS}, for which dataset.range must be auto")
        is_dark = np.asarray(image.convert("RGB")).max() < DARK * 255
        info = {TOLD: [CUT_DARK if is_dark else CUT]}
    if image.mode == "P" and image.palette is None:  # Pillow makes it black
        raise ValueError("its palette is missing")
    if image.mode not in ("RGB", "L", "1"):
        image = image.convert("RGB")  # here, where its errors are caught
    image.info = info  # what the file has there can be of any kind
    return image


def to_stored(
    picture: Image.Image, side: int, how: ToStored, interpolation: Interpolation = "bilinear"
) -> Image.Image:
    """A picture at the stored size, antialiased.

    `squash` scales both sides; `center_crop` first takes the largest square in the middle.
    """
    resampling = Image.Resampling[interpolation.upper()]
    if how == "center_crop":
        return ImageOps.fit(picture, (side, side), resampling)
    return picture.resize((side, side), resampling)


def stored_image(
    picture: Image.Image, side: int, how: ToStored, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """A picture in any mode as RGB at the stored size, (side, side, 3).

    The alpha channel is ignored, as in torchvision's ImageFolder.
    """
    in_colour = picture if picture.mode == "RGB" else picture.convert("RGB")
    return np.asarray(to_stored(in_colour, side, how, interpolation))


def check_name(path: str, where: str) -> None:
    """Check that the names in a path are UTF-8 text, so that they can be written into artefacts and tables.

    Raises:
        MacError: they have other bytes, which Python shows as lone surrogates.
    """
    if not path.isascii() and any("\ud800" <= letter <= "\udfff" for letter in path):
        raise MacError(f"{where}: the name '{path}' is not UTF-8 text; rename this file or folder")


def inside(root: Path, relative: str, where: str, whose: str = "the dataset's folder") -> str:
    """`relative` in its shortest spelling, if it stays within `root`; `where` starts the message.

    So `./a//b.jpg` is `a/b.jpg`. `c/../b.jpg` is `b.jpg`, unless `c` is a link.

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
    if not stays or Path(relative).is_absolute():
        raise MacError(
            f"{where}: path '{relative}' leaves {whose} {root}, or is absolute; give paths "
            "relative to that folder"
        )
    if ".." in path.parts and path.resolve() == Path(os.path.normpath(path)).resolve():
        return Path(os.path.normpath(relative)).as_posix()
    return Path(relative).as_posix()


@lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    """The real path of a folder. It is cached, because datasets have many more files than folders."""
    return folder.resolve()
