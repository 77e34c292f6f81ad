"""A metadata table: CSV as people write it, read into rows that know where they are."""

import csv
from pathlib import Path

from pipeline.errors import MacError

_SPLIT_NAMES = (("0", "train", "training"), ("1", "val", "valid", "validation", "dev"), ("2", "test", "testing"))
SPLIT_CODES = {name: code for code, names in enumerate(_SPLIT_NAMES) for name in names}


class Row:
    """One line of a table; `where` starts every message about it."""

    def __init__(self, where: str, values: dict[str, str | None]) -> None:
        self.where = where
        self._values = values

    def __getitem__(self, column: str) -> str:
        """The stripped text of a cell.

        Raises:
            MacError: the line ends before this column.
        """
        value = self._values[column]
        if value is None:
            raise MacError(f"{self.where}: the line ends before column {column}; complete it")
        return value.strip()

    def code(self, column: str, codes: dict[str, int], expected: str) -> int:
        """A cell looked up in `codes`, in any case."""
        text = self[column]
        if text.lower() not in codes:
            raise MacError(f"{self.where}: {column} is {text!r}, expected {expected}")
        return codes[text.lower()]


def read_table(file: Path, columns: list[str], remedy: str) -> list[Row]:
    """Read a CSV file that has at least `columns`; comma, semicolon or tab between cells, with or without a BOM.

    Raises:
        MacError: no such file, not UTF-8 CSV, no rows, or a missing column.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            header = opened.readline()
            opened.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.DictReader(opened, delimiter=delimiter, strict=True)
            reader.fieldnames = found = [name.strip() for name in reader.fieldnames or []]
            rows = [Row(f"{file}, line {reader.line_num}", row) for row in reader]
    except OSError as error:
        raise MacError(f"{file}: cannot be read ({error.strerror}); {remedy}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MacError(f"{file}: is not UTF-8 CSV ({error})") from None
    missing = [column for column in columns if column not in found]
    if missing:
        raise MacError(f"{file}: no column {', '.join(missing)}; it has {', '.join(found) or 'none'}")
    if not rows:
        raise MacError(f"{file}: no rows")
    return rows
