"""Readers: from a dataset's own files to records. Each dataset has one module, and one entry here.

The module has `read(root, options)`, and `Options`, the model of `dataset.options`.
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
        MacError: the metadata are not as the reader expects, or a split or class has no images.
    """
    reader = READERS[params.name]
    dataset: Dataset = reader.read(Path(params.root), reader.Options(**params.options))
    dataset.check()
    return dataset
