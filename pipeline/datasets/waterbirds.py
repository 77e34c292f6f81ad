"""Waterbirds (Sagawa et al. 2020), as released: `metadata.csv` beside one folder a bird species.

Optional `segmentations/<species>/<name>.png`, the layout of the CUB-200-2011 segmentations, hold true foregrounds.
"""

import csv
from pathlib import Path

from pipeline.datasets.record import Dataset, Record, inside
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.store import SPLITS

GROUPS = Groups(classes=("landbird", "waterbird"), attributes=("land", "water"))
_COLUMNS = {
    "img_filename": "",
    "y": "0 (landbird) or 1 (waterbird)",
    "split": "0, 1 or 2",
    "place": "0 (land), 1 (water), or empty if unknown",
}


def read(root: Path) -> Dataset:
    """Read metadata.csv.

    Raises:
        MacError: no such file, a missing column, a value out of range, an empty split, or a path out of the folder.
    """
    metadata = root / "metadata.csv"
    try:
        with metadata.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise MacError(
            f"{metadata}: cannot be read ({error.strerror}); dataset.root should be the folder of the Waterbirds release"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MacError(f"{metadata}: is not UTF-8 CSV ({error})") from None
    missing = [column for column in _COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise MacError(f"{metadata}: no column {', '.join(missing)}; expected {', '.join(_COLUMNS)}" if rows else f"{metadata}: no rows")
    records = []
    for line, row in enumerate(rows, start=2):
        where = f"{metadata}, line {line}"
        path = inside(root, row["img_filename"] or "", where)
        foreground = str(Path("segmentations", path).with_suffix(".png"))
        records.append(
            Record(
                path=path,
                label=_code(row, "y", len(GROUPS.classes), where),
                attribute=UNKNOWN if row["place"] == "" else _code(row, "place", len(GROUPS.attributes), where),
                split=_code(row, "split", len(SPLITS), where),
                foreground=inside(root, foreground, where) if (root / foreground).is_file() else None,
            )
        )
    for split, name in enumerate(SPLITS):
        if not any(record.split == split for record in records):
            raise MacError(f"{metadata}: no row has split {split} ({name}); the pipeline needs train, val and test rows")
    return Dataset(root, records, GROUPS)


def _code(row: dict[str, str], column: str, count: int, where: str) -> int:
    text = row[column]
    if text is None or text.strip() not in {str(value) for value in range(count)}:
        raise MacError(f"{where}: {column} is {text!r}, expected {_COLUMNS[column]}")
    return int(text)
