"""NICO++ (Zhang et al. 2023), track 1 as released, with splits as SubpopBench makes them.

<root>/{autumn,dim,grass,outdoor,rock,water}/<class>/*.jpg      public_dg_0416/train

60 classes in six contexts. Of each group, 75 images are held out (all, if there are fewer): a third of them
for validation, the rest for the test. So small groups have no training images. (Yang et al. 2023;
subpopbench/scripts/download.py in github.com/YyzHarry/SubpopBench.) Their images are not the same as there:
it draws them from the order of the disk.
"""

from pathlib import Path

import numpy as np
from pydantic import Field

from pipeline.datasets.listing import below, not_used
from pipeline.datasets.names import distinct
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.params.block import Block, Positive, Seed

CONTEXTS = ("autumn", "dim", "grass", "outdoor", "rock", "water")


class Options(Block):
    """The splits."""

    held_out: Positive = Field(
        default=75,
        description="images of each group that are not trained on; a third of them are validated on",
    )
    seed: Seed = Field(default=0, description="seed of the drawn splits")


def read(root: Path, options: Options) -> Dataset:
    """Read the tree. Classes are the sorted names; the attributes are the contexts.

    Raises:
        MacError: the folder of a context is missing, or an image is in no folder of a class.
    """
    remedy = "dataset.root should be public_dg_0416/train, which holds autumn/, dim/, ..."
    files, unused = below(root, CONTEXTS, remedy, depth=1)
    if flat := [root / context / file for context, file in files if len(file.parts) < 2]:
        raise MacError(f"{flat[0]}: expected <context>/<class>/<image>, such as autumn/bear/1.jpg")
    classes = distinct([file.parts[0] for _, file in files], "classes", str(root))
    label = np.array([classes.index(file.parts[0]) for _, file in files], np.int64)
    attribute = np.array([CONTEXTS.index(context) for context, _ in files], np.int64)
    split, group = np.zeros(len(files), np.int64), label * len(CONTEXTS) + attribute
    for each in np.unique(group):
        rows = np.random.default_rng([options.seed, int(each)]).permutation(np.flatnonzero(group == each))
        count = min(len(rows), options.held_out)
        split[rows[: count // 3]] = 1
        split[rows[count // 3 : count]] = 2
    records = []
    for row, (context, file) in enumerate(files):
        image = ImageFile(inside(root, f"{context}/{file.as_posix()}", str(root)))
        records.append(Record(image, int(label[row]), int(attribute[row]), int(split[row])))
    return Dataset(root, records, Groups(classes, CONTEXTS), tuple(not_used(unused)))
