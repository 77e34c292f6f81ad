"""Readers: from a dataset's own files to records. One module for each dataset, and one entry here.

A reader's module has `read(root, options)`, and `Options`, the model of `dataset.options`.
"""

from pathlib import Path
from typing import Any

from pipeline.datasets import bar, celeba, dominoes, folder, metashift, waterbirds
from pipeline.datasets.record import Dataset
from pipeline.params.dataset import DatasetParams

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
        MacError: metadata that is not as the reader expects, or a split or class without images.
    """
    reader = READERS[params.name]
    dataset: Dataset = reader.read(Path(params.root), reader.Options(**params.options))
    dataset.check()
    return dataset
