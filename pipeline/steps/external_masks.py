"""Masks from the user's own files, such as those of a segmentation model (`saliency.method: external`).

<folder>/<path of the image without its suffix>.png   or another suffix of images; or a.jpg.png for a.jpg
<folder>/<name>.csv                                   columns: path, as in images.h5; mask, its file

What is foreground in them, `true_masks` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets import true_masks
from pipeline.datasets.depth import TOLD
from pipeline.datasets.memory import holding_images
from pipeline.datasets.paths import Paths
from pipeline.datasets.sources import SUFFIXES, inside
from pipeline.datasets.table import read_table
from pipeline.errors import MacError, first_line
from pipeline.setting import ToStored
from pipeline.store import digest_of, file_digest

OF_MASKS = "the masks' folder"
SHOWN = 3  # images without a mask that are named
KEY = "saliency.external should be a folder of masks, or a CSV file with the columns path and mask"


@dataclass(frozen=True)
class ExternalMasks:
    """The mask files of some images.

    Attributes:
        folder: it can be sent to another process if it is absolute.
        files: by the image's path in images.h5, the path of its mask below the folder.
    """

    folder: Path
    files: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """sha256 of the contents of all files, with the images that they belong to.

        Raises:
            MacError: a file cannot be read.
        """
        contents = {}
        for path, name in self.files.items():
            try:
                contents[path] = file_digest(self.folder / name)
            except OSError as error:
                raise MacError(
                    f"{self.folder / name}: cannot be read ({first_line(error)}); make it readable"
                ) from None
        return digest_of(contents)

    @holding_images()
    def stored(self, path: str, side: int, how: ToStored) -> tuple[NDArray[np.bool_], list[str]]:
        """The mask of an image at the stored size, (side, side); and what to tell about how it was read.

        Args:
            path: of the image, in images.h5.
            how: as the image was stored.

        Raises:
            MacError: it cannot be read.
        """
        mask = true_masks.opened(self.folder / self.files[path], "make it again")
        return true_masks.stored(mask, side, how), mask.info.get(TOLD, [])


def find(source: Path, paths: Sequence[str]) -> ExternalMasks:
    """Find the mask of every image.

    Args:
        source: `saliency.external`.
        paths: of the images, in images.h5.

    Raises:
        MacError: no such folder or table, an image without a mask, one that may have several, a file that is
            the mask of several, or a path that leaves the folder.
    """
    is_folder = source.is_dir()
    if not is_folder and source.suffix.lower() != ".csv":
        raise MacError(f"{source}: no such folder; {KEY}")
    folder = source if is_folder else source.parent
    files = _in_folder(source, paths) if is_folder else _in_table(source, paths)
    if missing := [path for path in paths if path not in files]:
        first = ", ".join(missing[:SHOWN])
        wanted = f"{PurePosixPath(missing[0]).with_suffix('.png')}" if is_folder else "a row with its file"
        raise MacError(
            f"{source}: {len(missing)} of {len(paths)} images have no mask, such as {first}; with "
            "saliency.method external, all images of the retraining set and of the validation split need "
            f"one: {wanted} for {missing[0]}"
        )
    return ExternalMasks(folder, files)


def _in_folder(folder: Path, paths: Sequence[str]) -> dict[str, str]:
    """The mask of every image that has one, below the folder."""
    listed: dict[str, dict[str, list[str]]] = {}
    found: dict[str, str] = {}
    image_of: dict[str, str] = {}
    for path in paths:
        parent, _, name = inside(folder, path, str(folder), OF_MASKS).rpartition("/")
        if parent not in listed:
            listed[parent] = _by_stem(folder / parent)
        names = listed[parent].get(name) or listed[parent].get(PurePosixPath(name).stem, [])
        if len(names) > 1:
            several = " and ".join(names)
            raise MacError(f"{folder / parent}: {several} are all named as the mask of {name}; keep one")
        for each in names:
            file = inside(folder, f"{parent}/{each}" if parent else each, str(folder), OF_MASKS)
            other = image_of.setdefault(file, path)
            if other != path:
                raise MacError(
                    f"{folder / file}: may be the mask of {other} and of {path}; call them "
                    f"{PurePosixPath(other).name}.png and {name}.png"
                )
            found[path] = file
    return found


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """The images in a folder by their names without suffix, sorted; none if there is no such folder."""
    found: dict[str, list[str]] = {}
    try:
        names = sorted(file.name for file in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        raise MacError(f"{folder}: cannot be listed ({first_line(error)}); make it readable") from None
    for name in names:
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            found.setdefault(PurePosixPath(name).stem, []).append(name)
    return found


def _in_table(table: Path, paths: Sequence[str]) -> dict[str, str]:
    """The mask of every image that has a row, if the file is there."""
    wanted, there = set(paths), Paths(table.parent)
    found: dict[str, str] = {}
    for row in read_table(table, ["path", "mask"], KEY):
        path = row["path"] if row["path"] in wanted else row["path"].replace("\\", "/")
        path = path if path in wanted else PurePosixPath(path).as_posix()
        if path not in wanted or not row["mask"]:
            continue
        if path in found:
            raise MacError(f"{row.where}: path '{path}' is there already; an image has one mask")
        file = inside(table.parent, there.read(row["mask"]), row.where, OF_MASKS)
        if there.has(file):
            found[path] = file
    return found
