"""What a reader yields: the same record for every dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.sources import Source
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.store import SPLITS


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        attribute: index into the dataset's attributes, or UNKNOWN.
        split: 0 train, 1 val, 2 test.
        foreground: its true mask, of the image's size, or None.
    """

    image: Source
    label: int
    attribute: int
    split: int
    foreground: Source | None = None


@dataclass(frozen=True)
class Dataset:
    """All records of a dataset, in the order of its metadata."""

    root: Path
    records: list[Record]
    groups: Groups

    def check(self, images: str = "image") -> None:
        """Raise MacError unless there are two classes or more, images in every split, and training images of every class."""
        classes = self.groups.classes
        if len(classes) < 2:
            raise MacError(f"{self.root}: only one class ({', '.join(classes)}); a classifier needs two or more")
        found = {record.split for record in self.records}
        for split, name in enumerate(SPLITS):
            if split not in found:
                raise MacError(f"{self.root}: no {images} is in the split {name}; the pipeline needs train, val and test images")
        trained = {record.label for record in self.records if record.split == 0}
        if untrained := [name for label, name in enumerate(classes) if label not in trained]:
            raise MacError(f"{self.root}: no training {images} is of class {', '.join(untrained)}")


def draw_parts(keys: Sequence[str], fractions: Sequence[float], seed: int) -> list[int]:
    """Draw seeded parts within the rows of each key: 0 for what is left, i + 1 for the part of `fractions[i]`.

    A key's draw depends on the seed, its place among the sorted keys and its number of rows alone. Where it has rows enough,
    every part has at least one.
    """
    parts = np.zeros(len(keys), np.int64)
    array = np.array(keys)
    for number, key in enumerate(sort_names(keys)):
        rows = np.random.default_rng([seed, number]).permutation(np.flatnonzero(array == key))
        start = 0
        for part, fraction in enumerate(fractions, 1):
            stop = start + max(round(fraction * len(rows)), int(len(rows) > len(fractions)))
            parts[rows[start:stop]] = part
            start = stop
    return [int(part) for part in parts]


def sort_names(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct names, sorted; whole numbers by size."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))
