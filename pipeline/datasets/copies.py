"""Copies: images of a dataset whose stored pixels are the same."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.progress import log
from pipeline.datasets.names import shortened
from pipeline.datasets.record import Dataset, Record
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN
from pipeline.store import SPLITS


class Copies:
    """All sets of copies in a dataset, listed in a table beside images.h5.

    The digests are of the stored pixels, because these are what training sees. So a file that is copied,
    linked or saved in another lossless format is a copy, and so are two images of one colour.

    Args:
        dataset: images that cannot be read are among its records.
        digests: (N, D) uint8, of each record's stored pixels.
        readable: (N,) bool.
    """

    def __init__(self, dataset: Dataset, digests: NDArray[np.uint8], readable: NDArray[np.bool_]) -> None:
        self._dataset = dataset
        _, of, count = np.unique(digests, axis=0, return_inverse=True, return_counts=True)
        count = np.bincount(of.ravel()[readable], minlength=len(count))
        members: dict[int, list[int]] = {}
        for number in np.flatnonzero((count[of.ravel()] > 1) & readable):
            members.setdefault(int(of.ravel()[number]), []).append(int(number))
        self.sets = list(members.values())  # of row numbers, by their first rows

    def write(self, file: Path) -> None:
        """List all copies in a CSV file. If there are none, remove it."""
        if not self.sets:
            file.unlink(missing_ok=True)
            return
        groups, rows = self._dataset.groups, []
        for number, members in enumerate(self.sets):
            for row in members:
                record = self._dataset.records[row]
                attribute = "" if record.attribute == UNKNOWN else groups.attributes[record.attribute]
                rows.append(
                    {
                        "copies": number,
                        "row": row,
                        "path": record.image.name,
                        "split": SPLITS[record.split],
                        "class": groups.classes[record.label],
                        "attribute": attribute,
                    }
                )
        store.write_csv(file, rows)

    def judge(self, file: Path, on_duplicates: Literal["fail", "warn"]) -> None:
        """Warn of copies within a split; fail, or warn, because of copies in several splits.

        Args:
            file: the table of `write`, for the messages.

        Raises:
            MacError: copies have different classes; or they are in several splits, and `on_duplicates` is
                `fail`.
        """
        root = self._dataset.root
        if other := self._that_differ("label"):
            raise MacError(
                f"{root}: {self._told(other)} have the same pixels but different classes; correct their "
                f"labels, or take them out (all copies are listed in {file})"
            )
        if across := self._that_differ("split"):
            found = f"{root}: {self._told(across)} have the same pixels but are in different splits"
            if on_duplicates == "fail":
                raise MacError(
                    f"{found}; take them out of one (all copies are listed in {file}; dataset.on_duplicates: "
                    "warn goes on with them)"
                )
            log.warning("%s; all copies are listed in %s", found, file)
        within: Counter[str] = Counter()
        for members in self.sets:
            records = [self._dataset.records[row] for row in members]
            of_split = Counter(record.split for record in records)
            for record in records:
                if of_split[record.split] > 1:
                    within[self._dataset.groups.classes[record.label]] += 1
        if within:
            by_class = ", ".join(f"{count} of {name}" for name, count in sorted(within.items()))
            message = (
                "%d images have the same pixels as another one of their split (%s); all are listed in %s"
            )
            log.warning(message, within.total(), by_class, file)

    def _that_differ(self, field: Literal["label", "split"]) -> list[list[Record]]:
        """The sets whose members do not all have the same value."""
        found = []
        for members in self.sets:
            records = [self._dataset.records[row] for row in members]
            if len({getattr(record, field) for record in records}) > 1:
                found.append(records)
        return found

    def _told(self, sets: Sequence[Sequence[Record]]) -> str:
        """How many images these are, and the first of them with their splits and classes."""
        shown = []
        for records in sets:
            named = [
                f"{record.image.name} ({SPLITS[record.split]}, {self._dataset.groups.classes[record.label]})"
                for record in records
            ]
            shown.append(" = ".join(shortened(named)))
        return f"{sum(map(len, sets))} images ({', '.join(shortened(shown))})"
