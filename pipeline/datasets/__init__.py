"""Readers: from a dataset's own files to records. Each dataset has one module, and one entry here.

The module has `read(root, options)`, and `Options`, the model of `dataset.options`.
"""

from pathlib import Path
from typing import Any

from pipeline.datasets import bar, celeba, dominoes, folder, metashift, waterbirds
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import check_name
from pipeline.errors import MacError, first_line, quoted
from pipeline.params.dataset import DatasetParams

LONGEST_NAME = 200

READERS: dict[str, Any] = {
    "demo": waterbirds,
    "waterbirds": waterbirds,
    "celeba": celeba,
    "metashift": metashift,
    "dominoes": dominoes,
    "bar": bar,
    "folder": folder,
}


def read(params: DatasetParams) -> Dataset:
    """The records of the dataset that `params` names.

    Raises:
        MacError: the metadata are not as the reader expects, a split or class has no images, or a name of a
            class or attribute is no line of text.
    """
    reader = READERS[params.name]
    try:
        dataset: Dataset = reader.read(Path(params.root), reader.Options(**params.options))
    except OSError as error:  # a name that is too long, a folder that may not be entered
        where = params.root if error.filename is None else error.filename
        raise MacError(f"dataset.root: {where}: cannot be read ({first_line(error)})") from None
    _check_names(dataset)
    dataset.check()
    return dataset


def _check_names(dataset: Dataset) -> None:
    """Check that classes and attributes have names that fit into a line of every table and message."""
    for name in (*dataset.groups.classes, *dataset.groups.attributes):
        check_name(name, str(dataset.root))
        if len(name) > LONGEST_NAME or len(name.splitlines()) > 1:
            wrong = (
                "has a line break" if len(name.splitlines()) > 1 else f"has over {LONGEST_NAME} characters"
            )
            raise MacError(
                f"{dataset.root}: the name {quoted(name)} of a class or attribute {wrong}; rename it"
            )
