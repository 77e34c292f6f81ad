"""Spawrious (Lynch et al. 2023), as released: four breeds of dogs in six places.

<root>/{0,1}/<place>/<breed>/*.png      spawrious224, of which a benchmark uses some folders

Which folders a benchmark uses, and how many images of each, is from spawrious/torch.py in
github.com/aengusl/spawrious. There, the images of a folder are taken in the order of the disk; here, sorted.
The two training environments are one training split, of which a seeded share of each group becomes the
validation split. The test images have each breed in other places than the training images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.datasets.listing import below, not_used
from pipeline.datasets.options import DrawnValidation
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.metrics import Groups
from pipeline.splits import draw_splits

BREEDS = ("bulldog", "dachshund", "labrador", "corgi")  # in the order of the lists below
TOTAL = 3168  # images of a folder
SHARES = (0.97, 0.87)  # of the place that goes with the breed, in the two environments of one to one

# Training places, test places, and the place of the rest of the training images, if any.
BENCHMARKS = {
    "o2o_easy": (("desert", "jungle", "dirt", "snow"), ("dirt", "snow", "desert", "jungle"), "beach"),
    "o2o_medium": (("mountain", "beach", "dirt", "jungle"), ("jungle", "dirt", "beach", "snow"), "desert"),
    "o2o_hard": (("jungle", "mountain", "snow", "desert"), ("mountain", "snow", "desert", "jungle"), "beach"),
    "m2m_easy": (("desert", "mountain", "dirt", "jungle"), ("dirt", "jungle", "mountain", "desert"), ""),
    "m2m_medium": (("beach", "snow", "mountain", "desert"), ("desert", "mountain", "beach", "snow"), ""),
    "m2m_hard": (("dirt", "jungle", "snow", "beach"), ("snow", "beach", "dirt", "jungle"), ""),
}
# Of many to many: which two of the four places each breed has.
PAIRS = ((0, 1), (0, 1), (2, 3), (2, 3))


class Options(DrawnValidation):
    """Which benchmark."""

    benchmark: Literal["o2o_easy", "o2o_medium", "o2o_hard", "m2m_easy", "m2m_medium", "m2m_hard"] = Field(
        default="o2o_hard", description="one place for each breed (o2o), or two (m2m); how hard it is"
    )


def read(root: Path, options: Options) -> Dataset:
    """Read the folders of a benchmark. The places are the attributes.

    Raises:
        MacError: a folder is missing.
    """
    used = list(_folders(options.benchmark))
    remedy = "dataset.root should be the folder spawrious224, which holds 0/ and 1/ (m2m: the entire dataset)"
    files, unused = below(root, list(dict.fromkeys(folder for folder, _, _ in used)), remedy, depth=1)
    by_folder: dict[str, list[Path]] = {}
    for folder, file in files:
        by_folder.setdefault(folder, []).append(file)
    classes = tuple(sorted(BREEDS))
    places = tuple(sorted({folder.split("/")[1] for folder, _, _ in used}))
    records = []
    for folder, most, split in used:
        _, place, breed = folder.split("/")
        for file in by_folder.get(folder, [])[:most]:
            image = ImageFile(inside(root, f"{folder}/{file.as_posix()}", str(root)))
            records.append(Record(image, classes.index(breed), places.index(place), split))
    groups = Groups(classes, places)
    training = [record for record in records if record.split == 0]
    keys = [f"{classes[record.label]} {places[record.attribute]}" for record in training]
    drawn = draw_splits(keys, [options.val], options.seed)
    split_records = [
        Record(record.image, record.label, record.attribute, split)
        for record, split in zip(training, drawn, strict=True)
    ]
    split_records += [record for record in records if record.split]
    return Dataset(root, split_records, groups, tuple(not_used(unused)))


def _folders(benchmark: str) -> Iterator[tuple[str, int, int]]:
    """The folders of a benchmark: each with how many of its images are used, and their split."""
    train, test, rest = BENCHMARKS[benchmark]
    for number, breed in enumerate(BREEDS):
        if not rest:
            for place in PAIRS[number]:
                yield f"0/{train[place]}/{breed}", TOTAL, 0
                yield f"0/{test[place]}/{breed}", TOTAL, 2
            continue
        for environment, share in enumerate(SHARES):
            count = int(share * TOTAL)
            yield f"{environment}/{train[number]}/{breed}", count, 0
            yield f"{environment}/{rest}/{breed}", TOTAL - count, 0
            yield f"{environment}/{test[number]}/{breed}", TOTAL, 2
