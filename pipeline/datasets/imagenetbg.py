"""ImageNet-9 and the backgrounds challenge (Xiao et al. 2021), as released and as SubpopBench uses them.

<root>/in9l/{train,val}/00_dog/*.JPEG                training and validation images
<root>/bg_challenge/<variation>/val/00_dog/*.JPEG    test images: original, mixed_same, mixed_rand, ...

Nine classes. The variation is the attribute of a test image. That of other images is not known. The layout is
that of github.com/MadryLab/backgrounds_challenge and of subpopbench/scripts/download.py in
github.com/YyzHarry/SubpopBench.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.datasets.listing import below, not_used
from pipeline.datasets.names import distinct
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params.block import Block

Variation = Literal[
    "original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t"
]
_CLASS = re.compile(r"\d\d_(.+)")


class Options(Block):
    """The test images."""

    variations: Annotated[list[Variation], Field(min_length=1)] = Field(
        default=["mixed_same", "mixed_rand"],
        description="variations of the test images; the difference of these two is the paper's BG-gap",
    )


def read(root: Path, options: Options) -> Dataset:
    """Read the trees. Classes are the names behind the numbers of the folders, sorted.

    Raises:
        MacError: a folder is missing, or has another name than 00_dog and the like.
    """
    variations = tuple(dict.fromkeys(options.variations))
    tests = [f"bg_challenge/{variation}/val" for variation in variations]
    folders = ("in9l/train", "in9l/val", *tests)
    remedy = "dataset.root should be the folder that holds in9l/ and bg_challenge/"
    files, unused = below(root, folders, remedy, depth=1)
    names = [_class(root / folder, file) for folder, file in files]
    classes = distinct(names, "classes", str(root))
    records = []
    for (folder, file), name in zip(files, names, strict=True):
        image = ImageFile(inside(root, f"{folder}/{file.as_posix()}", str(root)))
        split = min(folders.index(folder), 2)
        attribute = variations.index(folder.split("/")[1]) if split == 2 else UNKNOWN
        records.append(Record(image, classes.index(name), attribute, split))
    return Dataset(root, records, Groups(classes, variations), tuple(not_used(unused)))


def _class(folder: Path, file: Path) -> str:
    found = _CLASS.fullmatch(file.parts[0]) if len(file.parts) == 2 else None
    if found is None:
        raise MacError(
            f"{folder / file}: expected {folder.name}/<number>_<class>/<image>, such as 00_dog/1.JPEG"
        )
    return found[1]
