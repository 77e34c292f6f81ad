"""Readers: from a dataset's own files to records. Each dataset has one module, and one entry here.

The module has `read(root, options)`, and `Options`, the model of `dataset.options`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.datasets import (
    bar,
    celeba,
    dominoes,
    folder,
    imagefolder,
    imagenetbg,
    metashift,
    nicopp,
    spawrious,
    waterbirds,
    webdataset,
)
from pipeline.datasets.opening import alike
from pipeline.datasets.paths import Paths
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import ImageFile
from pipeline.errors import MacError, first_line
from pipeline.params.dataset import DatasetParams

READERS: dict[str, Any] = {
    "demo": waterbirds,
    "waterbirds": waterbirds,
    "celeba": celeba,
    "metashift": metashift,
    "dominoes": dominoes,
    "bar": bar,
    "spawrious": spawrious,
    "nicopp": nicopp,
    "imagenetbg": imagenetbg,
    "folder": folder,
    "imagefolder": imagefolder,
    "webdataset": webdataset,
}


def read(params: DatasetParams) -> Dataset:
    """The records of the dataset that `params` names.

    Raises:
        MacError: the metadata are not as the reader expects, a split or class has no images, a name of a
            class or attribute is no line of text, or half of the files are not there. With `on_error: skip`,
            it is only noted that they are not.
    """
    reader = READERS[params.name]
    try:
        dataset: Dataset = reader.read(Path(params.root), reader.Options(**params.options))
    except OSError as error:  # a name that is too long, a folder that may not be entered
        where = params.root if error.filename is None else error.filename
        raise MacError(f"dataset.root: {where}: cannot be read ({first_line(error)})") from None
    dataset.check()
    sources = [record.image for record in dataset.records]
    sources += [record.foreground for record in dataset.records if record.foreground]
    names = [source.name for source in sources if isinstance(source, ImageFile)]
    missing = Paths(dataset.root).missing(names)
    if not missing:
        return dataset
    first = dataset.root / missing[0]
    said = f"{len(missing)} of {len(names)} files are not there, such as {first}"
    if remedy := alike(first):
        said += f"; {remedy}"
    if params.on_error == "fail" and 2 * len(missing) >= len(names):
        raise MacError(f"{dataset.root}: {said}; correct the paths, which start at dataset.root")
    return replace(dataset, notes=(*dataset.notes, said))
