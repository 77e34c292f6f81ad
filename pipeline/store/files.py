"""Writes files and folders completely or not at all: under a temporary name, synced, then renamed."""

import csv
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline.errors import MacError, first_line


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, to write to. It is renamed to `path` if the block raises no exception.

    Args:
        durable: whether the file must survive a power failure. It need not if it is checked before it is
            used, and can be made again.

    Raises:
        MacError: the folder cannot be written, or the disk is full. An old file at `path` is unchanged.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            _remove_stale(path)
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    except OSError as error:
        _remove(temporary)
        if "read data" in str(error):  # from HDF5, about a file that the block reads, not about `path`
            raise
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    except BaseException:
        _remove(temporary)
        raise


def _temporary(path: Path) -> Path:
    """The temporary name. It has the process and the host, so that files of killed processes are found."""
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")


def _remove_stale(path: Path) -> None:
    """Remove temporary files beside `path` that killed processes of this machine left."""
    name, host = re.escape(path.name), re.escape(socket.gethostname())
    temporary = re.compile(rf"\.{name}\.(\d+)@{host}(\.ballast)?\.tmp")
    for file in path.parent.iterdir():
        found = temporary.fullmatch(file.name)
        if found is None or _is_alive(int(found[1])):
            continue
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            _remove(file)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is alive, and belongs to another user
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to fill. It replaces `path` if the block raises no exception.

    Raises:
        MacError: the folder cannot be written, or the disk is full. An old folder at `path` is unchanged.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        replaced = temporary.with_suffix(".old")
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        sync(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def tensor_errors() -> Iterator[None]:
    """Turn safetensors' own exception, which it raises if a file cannot be written, into an OSError."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(first_line(error)) from error


@contextmanager
def ballast(path: Path) -> Iterator[Callable[[], None]]:
    """Take 4 MiB of the disk beside `path`, and yield a function that frees them.

    HDF5 cannot close a file on a full disk. After these 4 MiB are freed, it can.
    """
    file = path.with_suffix(".ballast.tmp")
    try:
        with file.open("wb") as reserved:
            os.posix_fallocate(reserved.fileno(), 0, 4 << 20)
        yield lambda: file.unlink(missing_ok=True)
    finally:
        file.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write JSON, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def decoded(text: str | bytes) -> Any:
    """The value of JSON text that may come from anyone.

    Raises:
        ValueError: it is no JSON; or it is nested too deeply, has a number that is too long, a name twice in
            one object, or half of a character.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _require_plain(value)
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _require_plain(value: object) -> None:
    """Raise a ValueError if a value is nested too deeply, or has text that cannot be written."""
    level = [value]
    for _ in range(_DEEPEST):
        if not all(_is_text(each) for each in level if isinstance(each, str)):
            raise ValueError("a text has half of a character, or a zero byte")
        objects = [each for each in level if isinstance(each, dict)]
        lists = [each for each in level if isinstance(each, list)]
        if not objects and not lists:
            return
        level = list(chain(*objects, *(each.values() for each in objects), *lists))
    raise ValueError("it is nested too deeply")


def _is_text(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MacError: it cannot be read, or holds no JSON object. The message ends with `remedy`, what to do.
    """
    try:
        found = decoded(_read(path, remedy))
    except ValueError as error:
        raise MacError(f"{path}: is not JSON ({first_line(error)}); {remedy}") from None
    if not isinstance(found, dict):
        raise MacError(f"{path}: holds no JSON object; {remedy}")
    return found


def read_csv(path: Path, remedy: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, each with its cells by column.

    Raises:
        MacError: it cannot be read, or its rows are not as long as its header. The message ends with
            `remedy`, what to do.
    """
    try:
        header, *rows = csv.reader(io.StringIO(_read(path, remedy), newline=""), strict=True)
        if len(set(header)) < len(header):
            raise ValueError("two columns have one name")
        return [dict(zip(header, row, strict=True)) for row in rows]
    except (csv.Error, ValueError) as error:
        raise MacError(f"{path}: is not CSV ({first_line(error)}); {remedy}") from None


def _read(path: Path, remedy: str) -> str:
    """The text of a file that may come from anyone.

    Raises:
        MacError: it cannot be read, is no file, is too large, or is no text.
    """
    if path.exists() and not path.is_file():
        raise MacError(f"{path}: is no file; {remedy}")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_TEXT + 1)
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    if len(content) > _MOST_TEXT:
        raise MacError(f"{path}: has more than {_MOST_TEXT >> 20} MiB; {remedy}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MacError(f"{path}: is no UTF-8 text ({error.reason}); {remedy}") from None


_MOST_TEXT = 64 << 20  # bytes of a JSON or CSV file
_MOST_DIGITS = 300  # of a whole number; a float has no more
_DEEPEST = 32  # levels of JSON


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, completely or not at all.

    Args:
        rows: all with the same keys.
        columns: the keys in order; None takes those of the first row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns if columns is not None else list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
