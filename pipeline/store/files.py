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
    """A temporary name beside `path`; what the block writes there takes the place of `path` if the block ends well.

    Args:
        durable: whether it must outlive a power cut; not for what is checked before it is used and can be made again.

    Raises:
        MacError: the folder cannot be written, or the disk is full; what was at `path` is untouched.
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
        if "read data" in str(error):  # HDF5, of a file that the block reads
            raise
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    except BaseException:
        _remove(temporary)
        raise


def _temporary(path: Path) -> Path:
    """Names the process that writes, so that one that was killed is known from one that is at it."""
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")


def _remove_stale(path: Path) -> None:
    """Remove what processes of this machine left that were killed while they wrote `path`."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d+)@{re.escape(socket.gethostname())}(\.ballast)?\.tmp")
    for file in path.parent.iterdir():
        if (found := ours.fullmatch(file.name)) and not _is_alive(int(found[1])):
            shutil.rmtree(file, ignore_errors=True) if file.is_dir() else _remove(file)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """Fill a folder: the block writes into a temporary one, which takes the place of `path` when it ends well."""
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
    """safetensors raises an exception of its own where a file cannot be written (a full disk); an OSError leaves the block."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(first_line(error)) from error


@contextmanager
def ballast(path: Path) -> Iterator[Callable[[], None]]:
    """Keep 4 MiB free beside `path`; what is yielded lets go of them, for a library that cannot even close a file on a full disk."""
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
        MacError: it cannot be read, or is not JSON; `remedy` is the command that makes it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); run '{remedy}'") from None
    except ValueError as error:
        raise MacError(f"{path}: is not JSON ({first_line(error)}); run '{remedy}'") from None
    return dict(found)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write rows with the same keys as CSV, whole or not at all; `columns` are the first row's keys unless they are given."""
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
    """Have the disk take what was written to a file, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
