"""One's own images: a CSV table beside them, or a plain tree with one folder a class.

<root>/<metadata>              columns as named in `dataset.options`
<root>/<class>/**.jpg          without a table; or <root>/{train,val,test}/<class>/**.jpg
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.record import Dataset, Record, inside
from pipeline.datasets.table import SPLIT_CODES, read_table
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params import FolderOptions

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def read(root: Path, options: FolderOptions) -> Dataset:
    """Read the table or the tree. Classes and attributes are the sorted distinct values, numbers by size.

    Raises:
        MacError: no such folder or table, a missing column, a path that is out of the folder or there twice, fewer than two
            classes, an unknown split, or a split or class without training rows.
    """
    dataset = _from_table(root, options) if options.metadata else _from_tree(root, options)
    where = root / options.metadata if options.metadata else root
    classes = dataset.groups.classes
    if len(classes) < 2:
        raise MacError(f"{where}: only one class ({classes[0]}); a classifier needs two or more")
    for name in dataset.empty_splits():
        raise MacError(f"{where}: no image is in the split {name}; the pipeline needs train, val and test images")
    if untrained := dataset.untrained_classes():
        raise MacError(f"{where}: no training image of class {', '.join(untrained)}")
    return dataset


def _from_table(root: Path, options: FolderOptions) -> Dataset:
    assert options.metadata
    file = root / inside(root, options.metadata, "dataset.options.metadata")
    optional = [column for column in (options.split, options.attribute, options.mask) if column]
    rows = read_table(file, [options.path, options.label, *optional], "dataset.root should be the folder that holds it")
    labels = [row[options.label] for row in rows]
    attributes = [row[options.attribute] if options.attribute else "" for row in rows]
    for row, label in zip(rows, labels, strict=True):
        if not label:
            raise MacError(f"{row.where}: {options.label} is empty; give every image a class")
    groups = Groups(_distinct(labels), _distinct(a for a in attributes if a))
    expected = "train, val or test (or 0, 1, 2)"
    splits = [row.code(options.split, SPLIT_CODES, expected) for row in rows] if options.split else drawn_splits(labels, options)
    records, seen = [], dict[str, str]()
    for row, label, attribute, split in zip(rows, labels, attributes, splits, strict=True):
        path = inside(root, row[options.path], row.where)
        if path in seen:
            raise MacError(f"{row.where}: path '{path}' is there already ({seen[path]}); an image has one row")
        seen[path] = row.where.rpartition(", ")[2]
        mask = row[options.mask] if options.mask else ""
        records.append(
            Record(
                path=path,
                label=groups.classes.index(label),
                attribute=groups.attributes.index(attribute) if attribute else UNKNOWN,
                split=split,
                foreground=inside(root, mask, row.where) if mask else None,
            )
        )
    return Dataset(root, records, groups)


def _from_tree(root: Path, options: FolderOptions) -> Dataset:
    if not root.is_dir():
        raise MacError(f"{root}: no such folder; dataset.root should be the folder of the images")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    by_split = bool(folders) and all(name.lower() in SPLIT_CODES for name in folders)
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    depth = 1 if by_split else 0
    files = [file for file in files if len(file.parts) > depth + 1 and not any(part.startswith(".") for part in file.parts)]
    if not files:
        raise MacError(f"{root}: no images below it; expected <class>/<image>, or give a table in dataset.options.metadata")
    labels = [file.parts[depth] for file in files]
    classes = _distinct(labels)
    splits = [SPLIT_CODES[file.parts[0].lower()] for file in files] if by_split else drawn_splits(labels, options)
    records = [
        Record(inside(root, file.as_posix(), str(root)), classes.index(label), UNKNOWN, split)
        for file, label, split in zip(files, labels, splits, strict=True)
    ]
    return Dataset(root, records, Groups(classes, ()))


def drawn_splits(labels: Sequence[str], options: FolderOptions) -> list[int]:
    """A seeded split within each class: the fractions `val` and `test`, at least one image each where a class has three.

    A class's draw depends on the seed, its place among the classes and its number of images alone.
    """
    splits = np.zeros(len(labels), np.int64)
    array = np.array(labels)
    for number, label in enumerate(_distinct(labels)):
        rows = np.random.default_rng([options.seed, number]).permutation(np.flatnonzero(array == label))
        val, test = (max(round(fraction * len(rows)), int(len(rows) > 2)) for fraction in (options.val, options.test))
        splits[rows[:val]], splits[rows[val : val + test]] = 1, 2
    return splits.tolist()


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    distinct = set(values)
    if all(value.isdecimal() for value in distinct):
        return tuple(sorted(distinct, key=lambda value: (int(value), value)))
    return tuple(sorted(distinct))
