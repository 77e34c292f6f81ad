"""Metadata tables: CSV as people write it, JSON Lines and Parquet, read into rows that know their line."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.errors import MacError, first_line
from pipeline.store import regular

MOST_ROWS = 2**24  # of a Parquet table: small files can claim many rows
MOST_BYTES = 2**30  # of the columns that are read of a Parquet table, unpacked

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
    """Read a table that has at least `columns`. Its suffix says what it is.

    `.parquet`: Parquet. `.jsonl`, `.ndjson`: one JSON object in each line; a key that is not there is an
    empty cell. `.tsv`: cells are separated by tabs. All else: by commas, semicolons or tabs. A BOM is
    allowed.

    Raises:
        MacError: no such file, one that cannot be read as what its suffix says, no rows, a missing column, or
            a cell that is no text, number or truth value.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(file, columns, remedy)
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(file, columns, remedy)
    lines = read_lines(file, remedy)
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=(lines[0] if lines else "").count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        cells = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise MacError(f"{file}: is not UTF-8 CSV ({error})") from None
    return rows_of(file, header, cells, columns)


def text_of(value: object, where: str, column: str) -> str:
    """A value of JSON or Parquet as the text of a cell; a whole number has no decimals, null is empty.

    Raises:
        MacError: it is a list, an object, bytes or the like.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return str(int(value))
    if isinstance(value, (str, bool, int, float, Decimal, date, time)):
        return str(value)
    remedy = "write it as one"
    if isinstance(value, (bytes, dict)):
        remedy = "if it holds the images themselves, write them into files, and name these"
    raise MacError(f"{where}: {column} is {type(value).__name__}, expected a text or a number; {remedy}")


def parsed(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        MacError: it is something else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MacError(f"{where}: is not JSON ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise MacError(f'{where}: is no JSON object such as {{"file_name": "1.jpg", "label": "cat"}}')
    return found


def _read_json_lines(file: Path, columns: Sequence[str], remedy: str) -> list[Row]:
    """A JSON Lines file, as `read_table`."""
    header, lines = dict[str, None](), []
    for number, line in enumerate(read_lines(file, remedy), 1):
        if line.strip():
            found = parsed(line, f"{file}, line {number}")
            header |= dict.fromkeys(found)
            lines.append((number, {column: found.get(column) for column in columns}))
    _require_columns(file, list(header), columns, bool(lines))
    rows = []
    for number, values in lines:
        where = f"{file}, line {number}"
        rows.append(Row(where, {name: text_of(value, where, name) for name, value in values.items()}))
    return rows


def _read_parquet(file: Path, columns: Sequence[str], remedy: str) -> list[Row]:
    """A Parquet file, as `read_table`. Text is kept once for all rows that have it."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise MacError(f"{file}: a Parquet file needs pyarrow: pip install 'mac-robust[parquet]'") from None
    try:
        with regular(file) as opened:
            table = parquet.ParquetFile(opened)
            _require_columns(file, table.schema_arrow.names, columns, table.metadata.num_rows > 0)
            _require_bounded(file, table.metadata, columns)
            schema, rows = table.schema_arrow, list[Row]()
            texts = [name for name in columns if str(schema.field(name).type) in ("string", "large_string")]
            table = parquet.ParquetFile(opened, metadata=table.metadata, read_dictionary=texts)
            for batch in table.iter_batches(columns=list(columns), use_threads=False):
                rows += _rows_of_batch(file, batch, columns, len(rows))
    except MacError:
        raise
    except OSError as error:
        raise MacError(f"{file}: cannot be read ({first_line(error)}); {remedy}") from None
    except Exception as error:  # pyarrow raises exceptions of many kinds at a damaged file
        raise MacError(f"{file}: is not a Parquet file that can be read ({first_line(error)})") from None
    return rows


def _rows_of_batch(file: Path, batch: Any, columns: Sequence[str], before: int) -> list[Row]:
    """The rows of a pyarrow.RecordBatch; `before` is how many rows are above it."""
    places = [f"{file}, row {before + number}" for number in range(1, batch.num_rows + 1)]
    cells = {}
    for name in columns:
        column = batch.column(name)
        if hasattr(column, "dictionary"):
            texts = column.dictionary.to_pylist()
            values = [None if code is None else texts[code] for code in column.indices.to_pylist()]
        else:
            values = column.to_pylist()
        cells[name] = [text_of(value, where, name) for value, where in zip(values, places, strict=True)]
    rows = []
    for number, where in enumerate(places):
        rows.append(Row(where, {name: cells[name][number] for name in columns}))
    return rows


def _require_bounded(file: Path, metadata: Any, columns: Sequence[str]) -> None:
    """Raise an error if a Parquet file unpacks to much more than a table of images.

    Args:
        metadata: a pyarrow.parquet.FileMetaData.
    """
    size = 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if chunk.path_in_schema.partition(".")[0] in columns:
                size += chunk.total_uncompressed_size
    if metadata.num_rows > MOST_ROWS or size > MOST_BYTES:
        raise MacError(
            f"{file}: has {metadata.num_rows:,} rows of {size:,} bytes in {', '.join(columns)}, more "
            f"than a table of {MOST_ROWS:,} images has; if a column holds images, write them into files, and "
            "name these"
        )


def _require_columns(file: Path, found: Sequence[str], columns: Sequence[str], has_rows: bool) -> None:
    """Raise an error if a column is missing, or there are no rows."""
    if missing := [column for column in columns if column not in found]:
        raise MacError(f"{file}: no column {', '.join(missing)}; it has {', '.join(found) or 'none'}")
    if not has_rows:
        raise MacError(f"{file}: no rows")


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
    _require_columns(file, found, columns, bool(lines))
    at = {column: found.index(column) for column in columns}
    rows = []
    for number, cells in lines:
        values: dict[str, str | None] = {}
        for column, place in at.items():
            values[column] = cells[place] if place < len(cells) else None
        rows.append(Row(f"{file}, line {number}", values))
    return rows
