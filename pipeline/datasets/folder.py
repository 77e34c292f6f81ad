"""Your own images: a CSV table beside them, or a plain tree with one folder for each class.

<root>/<metadata>              a CSV table; `dataset.options` names its columns
<root>/<class>/**.jpg          without a table; or <root>/{train,val,test}/<class>/**.jpg
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from pipeline.datasets.names import counted, distinct, is_missing, shortened
from pipeline.datasets.paths import Paths
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.datasets.table import SPLIT_CODES, Row, read_table
from pipeline.datasets.tree import read_tree
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params.block import Block, HeldOutShare, Seed
from pipeline.splits import draw_splits

SPLIT = "column with train, val or test; null: the splits are drawn within each class"
MASK = "column of the true mask's file, used only for measurements and controls; may be empty"


class Options(Block):
    """Where the table is, and the names of its columns. `null` means that it has no such column."""

    metadata: str | None = Field(description="CSV file in the folder; null: one folder for each class")
    path: str = Field(default="path", description="column of the image file, relative to the folder")
    label: str = Field(default="label", description="column of the class, a name or a number")
    split: str | None = Field(default="split", description=SPLIT)
    attribute: str | None = Field(
        default=None, description="column of the spurious attribute; an empty cell means unknown"
    )
    mask: str | None = Field(default=None, description=MASK)
    val: HeldOutShare = Field(default=0.15, description="share of the validation split, if it is drawn")
    test: HeldOutShare = Field(default=0.15, description="share of the test split, if it is drawn")
    seed: Seed = Field(default=0, description="seed of the drawn splits")


def read(root: Path, options: Options) -> Dataset:
    """Read the table or the tree. Classes and attributes are the distinct values, sorted; numbers by value.

    Raises:
        MacError: no such folder or table, a missing column, a path that leaves the folder, or an unknown
            split.
    """
    return _from_table(root, options) if options.metadata else _from_tree(root, options)


def _from_table(root: Path, options: Options) -> Dataset:
    assert options.metadata
    file = root / inside(root, options.metadata, "dataset.options.metadata")
    optional = [column for column in (options.split, options.attribute, options.mask) if column]
    rows = read_table(
        file, [options.path, options.label, *optional], "dataset.root should be the folder that holds it"
    )
    labels = [row[options.label] for row in rows]
    attributes = [row[options.attribute] if options.attribute else "" for row in rows]
    _require_labels(rows, labels, options.label)
    unknown = Counter(attribute for attribute in attributes if is_missing(attribute))
    attributes = ["" if attribute in unknown else attribute for attribute in attributes]
    groups = Groups(
        distinct(labels, f"values of {options.label}", str(file)),
        distinct([a for a in attributes if a], f"values of {options.attribute}", str(file)),
    )
    expected = "train, val or test (or 0, 1, 2)"
    splits = (
        [row.code(options.split, SPLIT_CODES, expected) for row in rows]
        if options.split
        else _drawn(labels, options)
    )
    records, paths = [], Paths(root)
    for row, label, attribute, split in zip(rows, labels, attributes, splits, strict=True):
        path = inside(root, paths.read(row[options.path]), row.where)
        mask = paths.read(row[options.mask]) if options.mask else ""
        records.append(
            Record(
                image=ImageFile(path),
                label=groups.classes.index(label),
                attribute=groups.attributes.index(attribute) if attribute else UNKNOWN,
                split=split,
                foreground=ImageFile(inside(root, mask, row.where)) if mask else None,
                where=row.where,
            )
        )
    notes = []
    if words := [word for word in sorted(unknown) if word]:
        said = ", ".join(shortened(counted(words, unknown)))
        notes.append(f"{options.attribute}: {said} count as unknown, as empty cells do")
        if len(groups.attributes) < 2:
            notes[-1] += ", so there are no groups; if it is a value, spell it out"
    if paths.turned:
        notes.append(f"{file.name}: {paths.turned} paths have the separators of Windows; \\ is read as /")
    return Dataset(root, records, groups, tuple(notes))


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


def _from_tree(root: Path, options: Options) -> Dataset:
    tree = read_tree(root)
    splits = _drawn(tree.labels, options) if tree.splits is None else tree.splits
    records = [
        Record(ImageFile(inside(root, file.as_posix(), str(root))), tree.classes.index(label), UNKNOWN, split)
        for file, label, split in zip(tree.files, tree.labels, splits, strict=True)
    ]
    return Dataset(root, records, Groups(tree.classes, ()), tuple(tree.notes))


def _drawn(labels: Sequence[str], options: Options) -> list[int]:
    return draw_splits(labels, [options.val, options.test], options.seed)
