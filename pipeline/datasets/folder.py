"""Your own images: a table beside them, or a plain tree with one folder for each class.

<root>/<metadata>              a table (CSV, TSV, JSON Lines, Parquet); `dataset.options` names its columns
<root>/<class>/**.jpg          without a table; or <root>/{train,val,test}/<class>/**.jpg

The tables of SubpopBench (github.com/YyzHarry/SubpopBench, subpopbench/scripts/download.py) are read too:
their columns are filename, split, y and a; some have splits of further test sets (`leave_out`), and paths
that begin with the folder of the machine that wrote them (`prefix`).
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pydantic import Field

from pipeline.datasets.paths import Paths
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.datasets.table import read_table
from pipeline.datasets.tabular import Columns, Entry, dataset_of, used
from pipeline.datasets.tree import read_tree
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.splits import draw_splits

MASK = "column of the true mask's file, used only for measurements and controls; may be empty"
PREFIX = "what the paths in the table begin with, and is taken off: the folder in which they were written"


class Options(Columns):
    """Where the table is, and the names of its columns. `null` means that it has no such column."""

    metadata: str | None = Field(
        description="table in the folder: .csv, .tsv, .jsonl or .parquet; null: one folder for each class"
    )
    path: str = Field(default="path", description="column of the image file, relative to the folder")
    prefix: str | None = Field(default=None, description=PREFIX)
    mask: str | None = Field(default=None, description=MASK)


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
    mask = [options.mask] if options.mask else []
    rows = read_table(
        file, [options.path, *options.names, *mask], "dataset.root should be the folder that holds it"
    )
    entries, paths, notes = [], Paths(root), []
    for row in rows:
        image = inside(root, paths.read(_without(options.prefix, row[options.path], row.where)), row.where)
        foreground = (
            paths.read(_without(options.prefix, row[options.mask], row.where)) if options.mask else ""
        )
        true_mask = ImageFile(inside(root, foreground, row.where)) if foreground else None
        entries.append(Entry(row, ImageFile(image), foreground=true_mask))
    if paths.turned:
        notes.append(f"{file.name}: {paths.turned} paths have the separators of Windows; \\ is read as /")
    entries, left_out = used(entries, options, str(file))
    return dataset_of(root, entries, options, str(file), [*left_out, *notes])


def _without(prefix: str | None, path: str, where: str) -> str:
    """A path without the folder in which it was written.

    Raises:
        MacError: it does not begin with it; or it is absolute, and no such folder is named.
    """
    if not prefix and path.startswith("/"):
        raise MacError(
            f"{where}: path {path!r} is absolute; let dataset.options.prefix be what is to be taken off, "
            "so that it starts at dataset.root"
        )
    if not prefix or not path:
        return path
    try:
        return PurePosixPath(path).relative_to(prefix).as_posix()
    except ValueError:
        raise MacError(
            f"{where}: path {path!r} does not begin with dataset.options.prefix, {prefix!r}; correct it"
        ) from None


def _from_tree(root: Path, options: Options) -> Dataset:
    if options.leave_out:
        raise MacError(
            f"{root}: dataset.options.leave_out needs a table with a column of splits, but "
            "dataset.options.metadata names none; name it, or empty leave_out"
        )
    tree = read_tree(root)
    splits = _drawn(tree.labels, options) if tree.splits is None else tree.splits
    records = [
        Record(ImageFile(inside(root, file.as_posix(), str(root))), tree.classes.index(label), UNKNOWN, split)
        for file, label, split in zip(tree.files, tree.labels, splits, strict=True)
    ]
    return Dataset(root, records, Groups(tree.classes, ()), tuple(tree.notes))


def _drawn(labels: Sequence[str], options: Options) -> list[int]:
    return draw_splits(labels, [options.val, options.test], options.seed)
