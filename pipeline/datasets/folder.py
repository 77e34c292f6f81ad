"""Your own images: a CSV table beside them, or a plain tree with one folder for each class.

<root>/<metadata>              a CSV table; `dataset.options` names its columns
<root>/<class>/**.jpg          without a table; or <root>/{train,val,test}/<class>/**.jpg
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, image_files, inside
from pipeline.datasets.table import SPLIT_CODES, read_table
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params.block import Block, HeldOutShare, Seed
from pipeline.splits import draw_splits, sort_names

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
    for row, label in zip(rows, labels, strict=True):
        if not label:
            raise MacError(f"{row.where}: {options.label} is empty; give every image a class")
    groups = Groups(sort_names(labels), sort_names([a for a in attributes if a]))
    expected = "train, val or test (or 0, 1, 2)"
    splits = (
        [row.code(options.split, SPLIT_CODES, expected) for row in rows]
        if options.split
        else _drawn(labels, options)
    )
    records = []
    for row, label, attribute, split in zip(rows, labels, attributes, splits, strict=True):
        path = inside(root, row[options.path], row.where)
        mask = row[options.mask] if options.mask else ""
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
    return Dataset(root, records, groups)


def _from_tree(root: Path, options: Options) -> Dataset:
    files = image_files(root, "dataset.root should be the folder of the images")
    files = [file for file in files if len(file.parts) > 1]
    by_split = bool(files) and all(file.parts[0].lower() in SPLIT_CODES for file in files)
    depth = 1 if by_split else 0
    files = [file for file in files if len(file.parts) > depth + 1]
    if not files:
        raise MacError(
            f"{root}: no images below it; expected <class>/<image>, or a table in dataset.options.metadata"
        )
    labels = [file.parts[depth] for file in files]
    classes = sort_names(labels)
    splits = [SPLIT_CODES[file.parts[0].lower()] for file in files] if by_split else _drawn(labels, options)
    records = [
        Record(ImageFile(inside(root, file.as_posix(), str(root))), classes.index(label), UNKNOWN, split)
        for file, label, split in zip(files, labels, splits, strict=True)
    ]
    return Dataset(root, records, Groups(classes, ()))


def _drawn(labels: Sequence[str], options: Options) -> list[int]:
    return draw_splits(labels, [options.val, options.test], options.seed)
