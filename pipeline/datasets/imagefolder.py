"""Hugging Face's imagefolder with metadata: a table beside the images, for all of them or for each split.

<root>/metadata.{csv,jsonl,parquet}             or, with the splits' folders,
<root>/{train,validation,test}/metadata.{csv,jsonl,parquet}

The column `file_name` is relative to the table's folder. (huggingface.co/docs/datasets/image_dataset;
src/datasets/packaged_modules/folder_based_builder in github.com/huggingface/datasets.)
Without such a table, it is a tree, which the reader `folder` reads.
"""

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from pipeline.datasets.paths import Paths
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import ImageFile, inside
from pipeline.datasets.table import read_table
from pipeline.datasets.tabular import Columns, Entry, dataset_of, used
from pipeline.datasets.tree import FOLDERS
from pipeline.errors import MacError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PATH = "file_name"


class Options(Columns):
    """The names of the columns, but for `file_name`. `null` means that there is no such column."""

    split: str | None = Field(
        default=None,
        description="column with train, val or test; null: the folders of the splits, if the "
        "images are in such, else the splits are drawn within each class",
    )


def read(root: Path, options: Options) -> Dataset:
    """Read the tables. Classes and attributes are the distinct values, sorted; numbers by value.

    Where no column has the splits, and the images are in folders of splits, these are the splits.

    Raises:
        MacError: no table, or two in one place; a missing column; a path that leaves the folder; images of
            which some are in folders of splits, and others not.
    """
    tables = _tables(root)
    entries, paths = [], Paths(root)
    for folder, file in tables:
        remedy = "dataset.root should be the folder that holds it"
        for row in read_table(file, [PATH, *options.names], remedy):
            image = inside(root, paths.read(f"{folder}{row[PATH]}"), row.where)
            if not (root / image).is_relative_to(file.parent):
                raise MacError(f"{row.where}: path {row[PATH]!r} leaves the folder of its table; correct it")
            entries.append(Entry(row, ImageFile(image), FOLDERS.get(image.partition("/")[0].casefold())))
    if options.split:
        entries = [replace(entry, split=None) for entry in entries]
    outside = [entry for entry in entries if entry.split is None]
    if outside and len(outside) < len(entries) and not options.split:
        raise MacError(
            f"{outside[0].row.where}: {outside[0].image.name} is in no folder of a split, as {len(outside)} "
            f"of {len(entries)} images, but the others are; move it into one, or take out its row; if they "
            "are no splits, dataset.name should be folder"
        )
    where = str(tables[0][1] if len(tables) == 1 else root)
    entries, left_out = used(entries, options, where)
    return dataset_of(root, entries, options, where, left_out)


def _tables(root: Path) -> list[tuple[str, Path]]:
    """The tables, each with the folder that its paths begin with: empty, or `train/`.

    Raises:
        MacError: there is none, or there are several in one place.
    """
    if not root.is_dir():
        raise MacError(f"{root}: no such folder; dataset.root should be the folder of metadata.csv or train/")
    folders = [path.name for path in sorted(root.iterdir()) if path.name.casefold() in FOLDERS]
    found = []
    for folder in ("", *(f"{name}/" for name in folders)):
        here = [f"{folder}{name}" for name in TABLES if (root / folder / name).is_file()]
        if len(here) > 1:
            raise MacError(f"{root}: has {' and '.join(here)}; keep one of them")
        found += [(folder, root / inside(root, name, str(root))) for name in here]
    if not found:
        raise MacError(
            f"{root}: no {', '.join(TABLES)} here, nor in folders of splits; if the folders are the classes, "
            "dataset.name should be folder"
        )
    with_table = {folder for folder, _ in found}
    if "" in with_table and len(found) > 1:
        raise MacError(f"{root}: has {found[0][1].name}, and tables in {found[1][0]} too; keep one kind")
    splits = [FOLDERS[folder[:-1].casefold()] for folder in with_table - {""}]
    if len(set(splits)) < len(splits):
        raise MacError(f"{root}: the folders {', '.join(sorted(with_table))} are partly one split; keep one")
    return found
