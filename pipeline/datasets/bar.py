"""Biased Action Recognition (Nam et al. 2020), as released.

It has two flat folders. The class is in the file's name. There is no attribute.

<root>/{train,test}/<class>_<number>.jpg       climbing, diving, fishing, pole vaulting, racing, throwing

The test images show each action in other places than the training images. There is no validation split: a
seeded share of the training images becomes one.
"""

from pathlib import Path

from pipeline.datasets.listing import below, not_used
from pipeline.datasets.names import distinct
from pipeline.datasets.options import DrawnValidation
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.splits import draw_splits

Options = DrawnValidation


def read(root: Path, options: Options) -> Dataset:
    """Read the two folders. The classes are the sorted names.

    Raises:
        MacError: a folder is missing, or a file name has no class.
    """
    remedy = "dataset.root should be the folder that holds BAR's train/ and test/"
    files, unused = below(root, ("train", "test"), remedy)
    labels = [_label(root / folder, file) for folder, file in files]
    training = [label for label, (folder, _) in zip(labels, files, strict=True) if folder == "train"]
    splits = draw_splits(training, [options.val], options.seed) + [2] * (len(files) - len(training))
    classes = distinct(labels, "classes", str(root))
    records = [
        Record(
            ImageFile(inside(root, f"{folder}/{file.as_posix()}", str(root))),
            classes.index(label),
            UNKNOWN,
            split,
        )
        for (folder, file), label, split in zip(files, labels, splits, strict=True)
    ]
    return Dataset(root, records, Groups(classes, ()), tuple(not_used(unused)))


def _label(folder: Path, file: Path) -> str:
    label, _, number = file.stem.rpartition("_")
    if not label or not number.isdecimal():
        raise MacError(f"{folder / file}: expected a name such as 'climbing_12.jpg', a class and a number")
    return label
