"""Write the demo dataset as image files in the layout of the official Waterbirds release.

    metadata.csv                       img_id, img_filename, y, split, place, place_filename
    <class>/<class>_<number>.jpg
    segmentations/<class>/<…>.png      true foregrounds

Image i is a pure function of (seed, i).
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.compute.progress import track
from pipeline.demo import scenes, silhouettes
from pipeline.demo.painting import TEXTURES, paint
from pipeline.store import create_folder

SIZE = 240
VISIBILITY = (0.5, 0.9)  # birds are hard to see, scenes are not
# Rows of each (class, place), in the order landbird/land, landbird/water, waterbird/land, waterbird/water. In training 5 %
# go against the correlation, as in Waterbirds; validation and test are balanced.
Counts = Mapping[int, tuple[int, ...]]
GROUP_COUNTS: Counts = {0: (475, 25, 25, 475), 1: (150, 150, 150, 150), 2: (250, 250, 250, 250)}


@dataclass(frozen=True)
class Row:
    """One image to be painted: a line of metadata.csv."""

    number: int
    label: int
    place: int
    split: int

    @property
    def name(self) -> str:
        species = silhouettes.BIRDS[self.label].__name__
        return f"{species}/{species}_{self.number:05d}"


def plan(group_counts: Counts) -> list[Row]:
    """All images of the dataset, training first."""
    rows: list[Row] = []
    for split, counts in group_counts.items():
        for group, count in enumerate(counts):
            rows += [Row(len(rows) + i, group // 2, group % 2, split) for i in range(count)]
    return rows


def write(folder: Path, seed: int, group_counts: Counts = GROUP_COUNTS) -> None:
    """Paint the dataset into `folder`, in parallel; an existing folder is replaced when all is painted."""
    rows = plan(group_counts)
    with create_folder(folder) as temporary:
        for bird in silhouettes.BIRDS:
            (temporary / bird.__name__).mkdir()
            (temporary / "segmentations" / bird.__name__).mkdir(parents=True)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for _ in track(pool.map(partial(_paint_row, temporary, seed), rows, chunksize=32), "painting the demo", len(rows), "images"):
                pass
        (temporary / "metadata.csv").write_text("\n".join(_metadata(rows)) + "\n")


def _paint_row(folder: Path, seed: int, row: Row) -> None:
    rng = np.random.default_rng([seed, row.number])
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    image, foreground = paint(silhouettes.BIRDS[row.label], scenes.PLACES[row.place], texture, SIZE, VISIBILITY, rng)
    Image.fromarray(image).save(folder / f"{row.name}.jpg", quality=90)
    Image.fromarray(foreground).save(folder / "segmentations" / f"{row.name}.png")


def _metadata(rows: Iterable[Row]) -> Iterable[str]:
    yield "img_id,img_filename,y,split,place,place_filename"
    for row in rows:
        place = scenes.PLACES[row.place].__name__
        yield f"{row.number + 1},{row.name}.jpg,{row.label},{row.split},{row.place},{place}/{row.number:05d}"
