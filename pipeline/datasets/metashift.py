"""MetaShift's cats and dogs (Liang & Zou 2022), in the layout of DISC (Wu et al. 2023).

<root>/train/{cat,dog}/{cat(sofa),cat(bed),dog(bench),dog(bike)}/*.jpg
<root>/test/{cat,dog}/{cat(shelf),dog(shelf)}/*.jpg

The name in brackets is the attribute. There is no validation split: as in DISC, a seeded share of the
test images becomes one.

(Other codes use another MetaShift, with cats and dogs indoors and outdoors. It can be read too, in folders
with names of this form.)
"""

import re
from pathlib import Path

from pipeline.datasets.listing import below, not_used
from pipeline.datasets.names import distinct
from pipeline.datasets.options import DrawnValidation
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.splits import draw_splits

Options = DrawnValidation


def read(root: Path, options: Options) -> Dataset:
    """Read the tree. Classes and attributes are the sorted names.

    Raises:
        MacError: a folder is missing, or an image is not in a folder such as train/cat/cat(sofa).
    """
    remedy = "dataset.root should be the folder that holds MetaShift's train/ and test/"
    files, unused = below(root, ("train", "test"), remedy, depth=2)
    names = [_class_and_context(root / folder, file) for folder, file in files]
    of_groups = [f"{c}({a})" for (c, a), (folder, _) in zip(names, files, strict=True) if folder == "test"]
    of_test = [1 if drawn else 2 for drawn in draw_splits(of_groups, [options.val], options.seed)]
    splits = [*[0] * (len(files) - len(of_test)), *of_test]
    where = str(root)
    classes = distinct([label for label, _ in names], "classes", where)
    groups = Groups(classes, distinct([context for _, context in names], "attributes", where))
    records = [
        Record(
            ImageFile(inside(root, f"{folder}/{file.as_posix()}", str(root))),
            groups.classes.index(label),
            groups.attributes.index(attribute),
            split,
        )
        for (folder, file), (label, attribute), split in zip(files, names, splits, strict=True)
    ]
    return Dataset(root, records, groups, tuple(not_used(unused)))


def _class_and_context(folder: Path, file: Path) -> tuple[str, str]:
    label = file.parts[0]
    context = re.fullmatch(re.escape(label) + r"\((.+)\)", file.parts[1]) if len(file.parts) == 3 else None
    if context is None:
        expected = f"{folder.name}/<class>/<class>(<context>)/<image>"
        raise MacError(f"{folder / file}: expected {expected}, such as train/cat/cat(sofa)/1.jpg")
    return label, context[1]
