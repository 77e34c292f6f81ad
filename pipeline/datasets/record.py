"""What a reader yields: the same record for every dataset."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.store import SPLITS


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        path: the image file, relative to the dataset's folder.
        attribute: index into the dataset's attributes, or UNKNOWN.
        split: 0 train, 1 val, 2 test.
        foreground: its true mask, relative to the dataset's folder, or None.
    """

    path: str
    label: int
    attribute: int
    split: int
    foreground: str | None = None


@dataclass(frozen=True)
class Dataset:
    """All records of a dataset, in the order of its metadata."""

    root: Path
    records: list[Record]
    groups: Groups

    def empty_splits(self) -> list[str]:
        """Names of the splits that no image is in."""
        found = {record.split for record in self.records}
        return [name for split, name in enumerate(SPLITS) if split not in found]

    def untrained_classes(self) -> list[str]:
        """Names of the classes that no training image is of."""
        found = {record.label for record in self.records if record.split == 0}
        return [name for label, name in enumerate(self.groups.classes) if label not in found]


def inside(root: Path, relative: str, where: str) -> str:
    """`relative` itself, if it stays within `root`.

    Raises:
        MacError: an absolute path, `..`, or a symbolic link that leads out.
    """
    try:
        stays = (root / relative).resolve().is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError) as error:  # a null character, a name too long, a loop of links
        raise MacError(f"{where}: path {relative!r} is no path ({error})") from None
    if not stays:
        raise MacError(f"{where}: path '{relative}' leaves the dataset's folder {root}; give paths below that folder")
    return relative
