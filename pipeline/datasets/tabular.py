"""From the rows of tables to records: classes, groups over any set of attributes, splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.datasets.names import counted, distinct, is_missing, shortened
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import Source
from pipeline.datasets.table import SPLIT_CODES, Row
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params.block import Block, HeldOutShare, Seed
from pipeline.splits import draw_splits
from pipeline.store import SPLITS

SPLIT = "column with train, val or test; null: the splits are drawn within each class"
ATTRIBUTE = "column of the spurious attribute, or a list of several; an empty cell means unknown"
LEAVE_OUT = "values of the column of splits whose rows are not used, such as those of further test sets"
JOINED = "+"  # between the values of several attributes, in the names of groups

# One column, or several.
Several = str | Annotated[list[str], Field(min_length=1)]


class Columns(Block):
    """The names of a table's columns, and how splits are drawn. `null` means that there is no such column."""

    label: str = Field(default="label", description="column of the class, a name or a number")
    split: str | None = Field(default="split", description=SPLIT)
    leave_out: list[str] = Field(default=[], description=LEAVE_OUT)
    attribute: Several | None = Field(default=None, description=ATTRIBUTE)
    val: HeldOutShare = Field(default=0.15, description="share of the validation split, if it is drawn")
    test: HeldOutShare = Field(default=0.15, description="share of the test split, if it is drawn")
    seed: Seed = Field(default=0, description="seed of the drawn splits")

    @property
    def attributes(self) -> list[str]:
        """The columns of the spurious attributes."""
        return as_list(self.attribute)

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return [self.label, *([self.split] if self.split else []), *self.attributes]


@dataclass(frozen=True)
class Entry:
    """A row, and what it is about.

    Attributes:
        split: that the place of the image says; None if the table has it, or it is drawn.
        foreground: as in `Record`.
    """

    row: Row
    image: Source
    split: int | None = None
    foreground: Source | None = None


def as_list(names: str | list[str] | None) -> list[str]:
    """One name, several or none, as a list."""
    return [names] if isinstance(names, str) else names or []


def used(entries: Sequence[Entry], columns: Columns, where: str) -> tuple[list[Entry], list[str]]:
    """The rows that `leave_out` does not name; and a note that says how many it names.

    Raises:
        MacError: no row is left, or there is no column of splits.
    """
    if not columns.leave_out:
        return list(entries), []
    if not columns.split:
        raise MacError(
            f"{where}: dataset.options.leave_out has values of the column of splits, but "
            "dataset.options.split names none; name it, or empty leave_out"
        )
    splits = [entry.row[columns.split] for entry in entries]
    kept = [entry for entry, split in zip(entries, splits, strict=True) if split not in columns.leave_out]
    if not kept:
        raise MacError(f"{where}: dataset.options.leave_out names all values of {columns.split}; name fewer")
    out = Counter(split for split in splits if split in columns.leave_out)
    said = ", ".join(shortened(counted(sorted(out), out)))
    return kept, [f"{out.total()} rows are left out: {columns.split} {said}"] if out else []


def dataset_of(
    root: Path, entries: Sequence[Entry], columns: Columns, where: str, notes: Sequence[str] = ()
) -> Dataset:
    """The records of some rows. Classes and attributes are the distinct values, sorted; numbers by value.

    Of several attributes, each combination that occurs is one attribute, named `sofa+night`. It is unknown
    where one of them is. If there are images to train and to test on, but none to validate, a share of each
    class of the training images is drawn for it; a note says so.

    Args:
        where: starts the messages about all of them.
        notes: what is known already.

    Raises:
        MacError: an image without a class, spellings of one name, two combinations of one name, or an unknown
            split.
    """
    rows = [entry.row for entry in entries]
    labels = [row[columns.label] for row in rows]
    _require_labels(rows, labels, columns.label)
    classes = distinct(labels, f"values of {columns.label}", where)
    codes, attributes, unknown = _attributes(rows, columns, where)
    splits, drawn = _splits(entries, labels, columns)
    records = []
    for entry, label, code, split in zip(entries, labels, codes, splits, strict=True):
        record = Record(
            entry.image, classes.index(label), code, split, entry.foreground, where=entry.row.where
        )
        records.append(record)
    return Dataset(root, records, Groups(classes, attributes), (*unknown, *drawn, *notes))


def combined(names: Sequence[Sequence[str]], where: str) -> tuple[str, ...]:
    """The names of combinations of attributes.

    Args:
        names: of each combination, the values of its attributes.

    Raises:
        MacError: two combinations would have one name.
    """
    joined = [JOINED.join(each) for each in names]
    if twice := [name for name, count in Counter(joined).items() if count > 1]:
        raise MacError(f"{where}: two combinations of attributes would be named {twice[0]!r}; rename a value")
    return tuple(joined)


def _attributes(
    rows: Sequence[Row], columns: Columns, where: str
) -> tuple[list[int], tuple[str, ...], list[str]]:
    """The code of each row's attribute, the names of the attributes, and notes."""
    places, names, notes = [], [], dict[str, str]()
    for column in columns.attributes:
        values = [row[column] for row in rows]
        unknown = Counter(value for value in values if is_missing(value))
        known = [value for value in values if value not in unknown]
        names.append(distinct(known, f"values of {column}", where))
        place = {name: number for number, name in enumerate(names[-1])}
        places.append([place.get(value, UNKNOWN) for value in values])
        if words := [word for word in sorted(unknown) if word]:
            said = ", ".join(shortened(counted(words, unknown)))
            notes[column] = f"{column}: {said} count as unknown, as empty cells do"
    if not places:
        return [UNKNOWN] * len(rows), (), []
    found = list(zip(*places, strict=True))
    combinations = sorted({each for each in found if UNKNOWN not in each})
    code = {each: number for number, each in enumerate(combinations)}
    for column, own in zip(columns.attributes, names, strict=True):
        if column in notes and len(own) < 2 and len(combinations) < 2:
            notes[column] += ", so there are no groups; if it is a value, spell it out"
    spelled = []
    for each in combinations:
        spelled.append([values[number] for values, number in zip(names, each, strict=True)])
    return [code.get(each, UNKNOWN) for each in found], combined(spelled, where), list(notes.values())


def _splits(entries: Sequence[Entry], labels: Sequence[str], columns: Columns) -> tuple[list[int], list[str]]:
    """The split of each row: from the place of its image, from its cell, or drawn; and a note."""
    splits = [entry.split for entry in entries if entry.split is not None]
    if not splits and columns.split is None:
        return draw_splits(labels, [columns.val, columns.test], columns.seed), []
    if not splits and columns.split:
        expected = "train, val or test (or 0, 1, 2); rows of others can be named in dataset.options.leave_out"
        splits = [entry.row.code(columns.split, SPLIT_CODES, expected) for entry in entries]
    train, val, test = range(len(SPLITS))
    if set(splits) != {train, test}:
        return splits, []
    rows = [row for row, split in enumerate(splits) if split == train]
    for row, split in zip(
        rows, draw_splits([labels[row] for row in rows], [columns.val], columns.seed), strict=True
    ):
        splits[row] = split
    note = f"no image is in the split val, so {splits.count(val)} images of train are drawn for it"
    return splits, [note]


def _require_labels(rows: Sequence[Row], labels: Sequence[str], column: str) -> None:
    """Raise an error if images have no class; what stands for a missing value is none."""
    without = [row for row, label in zip(rows, labels, strict=True) if is_missing(label)]
    if not without:
        return
    count = Counter(row[column] for row in without)
    found = f"is {without[0][column]!a}" if without[0][column] else "is empty"
    remedy = "give every image a class"
    if len(without) > 1:
        remedy += f" ({len(without)} rows have none: {', '.join(shortened(counted(sorted(count), count)))})"
    if set(count) != {""}:
        remedy += "; if it is the name of a class, spell it out"
    raise MacError(f"{without[0].where}: {column} {found}; {remedy}")
