"""Waterbirds (Sagawa et al. 2020), as released: `metadata.csv`, and one folder for each bird species.

The folder waterbirds_v1.0 of WILDS (github.com/p-lambda/wilds, wilds/datasets/waterbirds_dataset.py) has the
same files. True masks are optional: `segmentations/<species>/<name>.png`, the layout of the CUB-200-2011
segmentations.
"""

from pathlib import Path

from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import ImageFile, inside
from pipeline.datasets.table import read_table
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params.block import NoOptions

GROUPS = Groups(classes=("landbird", "waterbird"), attributes=("land", "water"))
CODES = {"0": 0, "1": 1}
Options = NoOptions


def read(root: Path, options: Options) -> Dataset:
    """Read metadata.csv. `place` may be empty if it is not known.

    Raises:
        MacError: no such file, a missing column, a value out of range, or a path out of the folder.
    """
    metadata = root / "metadata.csv"
    remedy = "dataset.root should be the folder of the Waterbirds release"
    records = []
    for row in read_table(metadata, ["img_filename", "y", "split", "place"], remedy):
        path = inside(root, row["img_filename"], row.where)
        foreground = str(Path("segmentations", path).with_suffix(".png"))
        records.append(
            Record(
                image=ImageFile(path),
                label=row.code("y", CODES, "0 (landbird) or 1 (waterbird)"),
                attribute=row.code(
                    "place", CODES | {"": UNKNOWN}, "0 (land), 1 (water), or empty if unknown"
                ),
                split=row.code("split", {"0": 0, "1": 1, "2": 2}, "0, 1 or 2"),
                foreground=ImageFile(inside(root, foreground, row.where))
                if (root / foreground).is_file()
                else None,
                where=row.where,
            )
        )
    return Dataset(root, records, GROUPS)
