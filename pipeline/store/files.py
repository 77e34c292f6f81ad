"""Files and folders that are written whole or not at all: under a temporary name, synced, then renamed."""

import csv
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline.errors import MacError, first_line


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path`, to write to. The file is renamed to `path` when the block ends well.

    Args:
        durable: whether the file must outlive a power cut. It need not where it is checked before it is used,
            and can be made again.

    Raises:
        MacError: the folder cannot be written, or the disk is full. What was at `path` is untouched.
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
        if "read data" in str(error):  # HDF5's words for a file that the block reads: `path` is not to blame
            raise
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    except BaseException:
        _remove(temporary)
        raise


def _temporary(path: Path) -> Path:
    """The name of what this process writes. It says which process it is, for that one may be killed."""
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")


def _remove_stale(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path` when they wrote it."""
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
        pass  # it is there, and another user's
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to fill. It takes the place of `path` when the block ends well.

    Raises:
        MacError: the folder cannot be written, or the disk is full. What was at `path` is untouched.
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
    """Turn safetensors' own exception into an OSError: it raises one where a file cannot be written."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(first_line(error)) from error


@contextmanager
def ballast(path: Path) -> Iterator[Callable[[], None]]:
    """Take 4 MiB of the disk beside `path`, and yield a function that gives them back.

    It is for a library that cannot even close its file on a full disk: with these 4 MiB it can.
    """
    file = path.with_suffix(".ballast.tmp")
    try:
        with file.open("wb") as reserved:
            os.posix_fallocate(reserved.fileno(), 0, 4 << 20)
        yield lambda: file.unlink(missing_ok=True)
    finally:
        file.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MacError: it cannot be read, or holds no JSON object. The line ends with `remedy`, what to do.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise MacError(f"{path}: is not JSON ({first_line(error)}); {remedy}") from None
    if not isinstance(found, dict):
        raise MacError(f"{path}: holds no JSON object; {remedy}")
    return found


def read_csv(path: Path, remedy: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, each with its cells by column.

    Raises:
        MacError: it cannot be read. The line ends with `remedy`, what to do.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, whole or not at all.

    Args:
        rows: each with the same keys.
        columns: the keys in their order; None takes those of the first row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns if columns is not None else list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until the disk has what was written to a file, or the names that are in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
