"""Metadata tables: CSV as people write it, read into rows that know their file and line."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import MacError
from pipeline.store import regular

_SPLIT_NAMES = (
    ("0", "train", "training"),
    ("1", "val", "valid", "validation", "dev"),
    ("2", "test", "testing"),
)
SPLIT_CODES: dict[str, int] = {}
for _code, _names in enumerate(_SPLIT_NAMES):
    SPLIT_CODES |= dict.fromkeys(_names, _code)


class Row:
    """One line of a table. Every message about it begins with `where`."""

    def __init__(self, where: str, values: dict[str, str | None]) -> None:
        self.where = where
        self._values = values

    @property
    def line(self) -> str:
        """`where` without the file."""
        return self.where.rpartition(", ")[2]

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
        """The code of a cell's text in `codes`; upper and lower case are the same.

        Raises:
            MacError: `codes` has no such text.
        """
        text = self[column]
        if text.lower() not in codes:
            raise MacError(f"{self.where}: {column} is {text!r}, expected {expected}")
        return codes[text.lower()]


def read_table(file: Path, columns: Sequence[str], remedy: str) -> list[Row]:
    """Read a CSV file that has at least `columns`.

    Cells are separated by commas, semicolons or tabs. A BOM is allowed.

    Raises:
        MacError: no such file, not UTF-8 CSV, no rows, or a missing column.
    """
    lines = read_lines(file, remedy)
    delimiter = max(",;\t", key=(lines[0] if lines else "").count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        cells = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise MacError(f"{file}: is not UTF-8 CSV ({error})") from None
    return rows_of(file, header, cells, columns)


def read_lines(file: Path, remedy: str) -> list[str]:
    """The lines of a UTF-8 text file, with or without a BOM. Each keeps its line end.

    Raises:
        MacError: no such file, or not UTF-8.
    """
    try:
        with io.TextIOWrapper(regular(file), newline="", encoding="utf-8-sig") as opened:
            return list(opened)
    except OSError as error:
        raise MacError(f"{file}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise MacError(f"{file}: is not UTF-8 text ({error})") from None


def rows_of(
    file: Path, header: Sequence[str], lines: Sequence[tuple[int, Sequence[str]]], columns: Sequence[str]
) -> list[Row]:
    """The cells of `columns` in numbered lines. Other columns are not kept.

    Raises:
        MacError: no rows, or a missing column.
    """
    found = [name.strip() for name in header]
    if missing := [column for column in columns if column not in found]:
        raise MacError(f"{file}: no column {', '.join(missing)}; it has {', '.join(found) or 'none'}")
    if not lines:
        raise MacError(f"{file}: no rows")
    at = {column: found.index(column) for column in columns}
    rows = []
    for number, cells in lines:
        values: dict[str, str | None] = {}
        for column, place in at.items():
            values[column] = cells[place] if place < len(cells) else None
        rows.append(Row(f"{file}, line {number}", values))
    return rows
