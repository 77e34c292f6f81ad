"""Write the demo dataset as image files, in the layout of the official Waterbirds release.

    metadata.csv                       img_id, img_filename, y, split, place, place_filename
    <class>/<class>_<number>.jpg       the images
    segmentations/<class>/<…>.png      their true masks

An image depends only on the seed and on its number.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.compute.progress import track
from pipeline.demo import scenes, silhouettes
from pipeline.demo.painting import TEXTURES, Look, paint
from pipeline.machine import usable_cores
from pipeline.store import create_folder

SIZE = 240  # side of the images, pixels
LOOK = Look(visibility=(0.5, 0.9), extent=(0.75, 1.0))  # birds are hard to see, scenes are not
# For each split, the number of images of each group: landbird on land, landbird on water, waterbird on land,
# waterbird on water. 2 % of the training images go against the correlation (Waterbirds: 5 %). Validation and
# test are balanced.
Counts = Mapping[int, tuple[int, ...]]
GROUP_COUNTS: Counts = {0: (490, 10, 10, 490), 1: (150, 150, 150, 150), 2: (250, 250, 250, 250)}


@dataclass(frozen=True)
class Entry:
    """An image to be painted: one line of metadata.csv.

    Attributes:
        number: of the image, from 0.
        label: index into `silhouettes.BIRDS`.
        place: index into `scenes.PLACES`.
        split: 0 train, 1 val, 2 test.
    """

    number: int
    label: int
    place: int
    split: int

    @property
    def name(self) -> str:
        """The image file, without its ending."""
        species = silhouettes.BIRDS[self.label].__name__
        return f"{species}/{species}_{self.number:05d}"


def entries(group_counts: Counts, every: int = 1) -> list[Entry]:
    """The images of the dataset, split by split.

    Args:
        every: take one in `every` images of each group. The images keep their numbers.
    """
    found: list[Entry] = []
    first = 0
    for split, counts in group_counts.items():
        for group, count in enumerate(counts):
            label, place = divmod(group, 2)
            for number in range(first + every // 2, first + count, every):
                found.append(Entry(number, label, place, split))
            first += count
    return found


def write(
    folder: Path, seed: int, group_counts: Counts = GROUP_COUNTS, every: int = 1, look: Look = LOOK
) -> None:
    """Paint the dataset into `folder`, on all cores. An existing folder is replaced when all is painted.

    Args:
        group_counts: how many images each group has in each split; see GROUP_COUNTS.
        every: paint one in `every` images of each group.

    Raises:
        MacError: the folder cannot be written.
    """
    todo = entries(group_counts, every)
    with create_folder(folder) as temporary:
        for bird in silhouettes.BIRDS:
            (temporary / bird.__name__).mkdir()
            (temporary / "segmentations" / bird.__name__).mkdir(parents=True)
        with ProcessPoolExecutor(usable_cores()) as pool:
            painted = pool.map(partial(_paint, temporary, seed, look), todo, chunksize=32)
            for _ in track(painted, "painting the demo", len(todo), "images"):
                pass
        (temporary / "metadata.csv").write_text("\n".join(_metadata(todo)) + "\n")


def _paint(folder: Path, seed: int, look: Look, entry: Entry) -> None:
    rng = np.random.default_rng([seed, entry.number])
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    bird, place = silhouettes.BIRDS[entry.label], scenes.PLACES[entry.place]
    image, mask = paint(bird, place, texture, SIZE, look, rng)
    Image.fromarray(image).save(folder / f"{entry.name}.jpg", quality=90)
    Image.fromarray(mask).save(folder / "segmentations" / f"{entry.name}.png")


def _metadata(written: Iterable[Entry]) -> Iterable[str]:
    """The lines of metadata.csv."""
    yield "img_id,img_filename,y,split,place,place_filename"
    for entry in written:
        place = scenes.PLACES[entry.place].__name__
        image = f"{entry.number + 1},{entry.name}.jpg,{entry.label},{entry.split}"
        yield f"{image},{entry.place},{place}/{entry.number:05d}"
