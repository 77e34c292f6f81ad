"""Files and folders that are written whole or not at all: under a temporary name, synced, then renamed."""

import csv
import io
import json
import os
import shutil
import tempfile
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    except OSError as error:
        _remove(temporary)
        if "read data" in str(error):  # HDF5, of a file that the block reads
            raise
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """Fill a folder: the block writes into a temporary one, which takes the place of `path` when it ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        replaced = temporary.with_suffix(".old")
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        _sync(path.parent)
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
    file = path.with_name(f".{path.name}.ballast.tmp")
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
