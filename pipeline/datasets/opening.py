"""Opening image files: HEIC through an optional package, and what is there where a file is not."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from pipeline.errors import MacError
from pipeline.store import regular

HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


@contextmanager
def reading(file: Path, or_else: str) -> Iterator[None]:
    """Whatever goes wrong with an image file in the block becomes a `MacError`.

    Args:
        or_else: what else can be done than to replace the file.

    Raises:
        MacError: the file cannot be read as an image.
    """
    try:
        yield
    except MacError:
        raise
    except Exception as error:  # decoders raise exceptions of every kind at a damaged file
        reason = " ".join(str(error).split()) or f"damaged: {type(error).__name__}"
        if isinstance(error, UnidentifiedImageError):
            reason = "no known format of images"
        remedy = f"replace it, or {or_else}"
        if isinstance(error, FileNotFoundError):
            remedy = alike(file) or remedy
        raise MacError(f"{file}: cannot be read as an image ({reason}); {remedy}") from None


@contextmanager
def open_picture(file: Path) -> Iterator[Image.Image]:
    """An image file, not decoded yet; see `identified`.

    Raises:
        OSError: it is not there, or cannot be opened.
        MacError: it is no regular file.
    """
    with regular(file) as opened, identified(opened) as image:
        yield image


def identified(opened: BinaryIO) -> Image.Image:
    """`Image.open`, for HEIC too, whatever the file's suffix.

    Raises:
        MacError: a HEIC file, and pillow-heif is not installed.
        Exception: whatever Pillow raises if it is no image.
    """
    try:
        return Image.open(opened)
    except UnidentifiedImageError:
        opened.seek(0)
        start = opened.read(12)
        if start[4:8] != b"ftyp" or start[8:12] not in HEIF:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise MacError(f"{opened.name}: HEIC needs pillow-heif: pip install 'mac-robust[heif]'") from None
    register_heif_opener()
    opened.seek(0)
    return Image.open(opened)


def alike(file: Path) -> str:
    """What is there instead of a file that is not, and how its name differs, in words; empty if nothing is.

    A name may differ in upper and lower case, in its Unicode form, or in the separators of Windows.
    """
    parts, folder = Path(str(file).replace("\\", "/")).parts, Path()
    for part in parts:
        if not (folder / part).exists():
            try:
                found = _names(folder, folder.stat().st_mtime_ns).get(_folded(part))
            except OSError:  # it is not there, or cannot be listed
                found = None
            if found is None:
                return "it has the separators of Windows" if "\\" in file.name else ""
            part = found
        folder /= part
    differ = ["the separators of Windows"] if "\\" in str(file) else []
    here, there = (unicodedata.normalize("NFKC", str(path)) for path in (Path(*parts), folder))
    if here != there:
        differ.append("upper and lower case")
    if here.casefold() == there.casefold() and _forms(Path(*parts)) != _forms(folder):
        differ.append("the Unicode form")
    return f"{folder.as_posix()!a} is there, which differs in {' and '.join(differ)}" if differ else ""


def _forms(path: Path) -> list[bool]:
    return [unicodedata.is_normalized(form, str(path)) for form in ("NFC", "NFD", "NFKC")]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


@lru_cache(maxsize=256)
def _names(folder: Path, _changed: int) -> dict[str, str]:
    """The names in a folder, by what spellings have in common. It is read again when it has changed."""
    return {_folded(path.name): path.name for path in sorted(folder.iterdir())}
