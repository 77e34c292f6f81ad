"""Readers: from a dataset's own files to records. One module a dataset, one line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.datasets import bar, celeba, dominoes, folder, metashift, waterbirds
from pipeline.datasets.record import Dataset
from pipeline.params import DatasetParams

# Each takes the dataset's folder and its options (params.OPTIONS).
READERS: dict[str, Callable[[Path, Any], Dataset]] = {
    "demo": waterbirds.read,
    "waterbirds": waterbirds.read,
    "celeba": celeba.read,
    "metashift": metashift.read,
    "dominoes": dominoes.read,
    "bar": bar.read,
    "folder": folder.read,
}


def read(params: DatasetParams) -> Dataset:
    """The records of the dataset that `params` names.

    Raises:
        MacError: metadata that is not as the reader expects, or a split or class without images.
    """
    dataset = READERS[params.name](Path(params.root), params.reader_options)
    dataset.check()
    return dataset
