"""Writes files and folders completely or not at all: under a temporary name, synced, then renamed."""

import csv
import ctypes
import errno
import io
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from pipeline.errors import MacError, first_line


@contextmanager
def replacing(
    path: Path,
    durable: bool = True,
    made_at: Path | None = None,
    last: Callable[[Path], object] | None = None,
) -> Iterator[Path]:
    """A temporary path, to write to. It is renamed to `path` if the block raises no exception.

    Args:
        durable: whether the file must survive a power failure. It need not if it is checked before it is
            used, and can be made again.
        made_at: the temporary path, which is kept if the block raises an exception, for another try. If it
            lies on another file system, it is copied. None is one beside `path`, which is removed then.
        last: is called with the complete file before it is renamed; with the copy too, if it is copied.

    Raises:
        MacError: the folder cannot be written, the disk is full, or `path` is a folder or a device. An old
            file at `path` is unchanged. The block's own OSErrors are taken for errors of writing.
    """
    temporary = made_at or _temporary(path)
    if _is_special(path):
        raise MacError(f"{path}: is no file; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            _remove_stale(path)
        if made_at is not None:  # whether a file can be made here is to be known before the block has run
            _temporary(path).touch()
            _temporary(path).unlink()
        yield temporary
        if durable:
            sync(temporary)
        if last is not None:
            last(temporary)
        _rename(temporary, path, last)
        if durable:
            sync(path.parent)
    except OSError as error:
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        if made_at is None:
            _remove(temporary)


def _rename(made: Path, path: Path, last: Callable[[Path], object] | None) -> None:
    """Rename a file, also from another file system."""
    try:
        os.replace(made, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(path, last=last) as copy:
            shutil.copyfile(made, copy)
        made.unlink()


def _is_special(path: Path) -> bool:
    """Whether it is a folder or a device. A rename would replace even /dev/null, and the link /dev/stdout."""
    folder = path.parent.resolve()
    is_device = folder == Path("/dev") or Path("/proc") in folder.parents
    return is_device or (path.exists() and not path.is_file())


def _temporary(path: Path) -> Path:
    """The temporary name. It has the process and the host, so that files of killed processes are found."""
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")


def _remove_stale(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path`.

    If such a process was killed between the two renames of `_move_into_place`, the old folder is put back.
    """
    name, host = re.escape(path.name), re.escape(socket.gethostname())
    left = re.compile(rf"\.{name}\.(\d+)@{host}(\.ballast)?\.(tmp|old)")
    for file in path.parent.iterdir():
        found = left.fullmatch(file.name)
        # In containers every run may have the same number: what has ours is not ours yet.
        if found is None or (int(found[1]) != os.getpid() and _is_alive(int(found[1]))):
            continue
        if found[3] == "old" and not os.path.lexists(path):
            with suppress(OSError):
                file.rename(path)
            continue  # it may be the only copy
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
    """Remove a file or a folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to fill. It replaces `path` if the block raises no exception.

    Raises:
        MacError: the folder cannot be written, the disk is full, or `path` is a file. An old folder at
            `path` is unchanged. The block's own OSErrors are taken for errors of writing.
    """
    temporary = _temporary(path)
    if path.is_file():  # one look: in the next moment, another process may have moved it away
        raise MacError(f"{path}: is no folder; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        _move_into_place(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise MacError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        _remove(temporary)  # or what it was exchanged with


def _move_into_place(folder: Path, path: Path) -> None:
    """Rename `folder` to `path`. What was at `path` is then at `folder`, or removed.

    A reader sees the old folder or the new one. Other processes may do the same at the same time: the last
    one wins.
    """
    for _ in range(_ATTEMPTS):
        try:
            folder.rename(path)  # nothing is there, or an empty folder
            return
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        try:
            if not _exchanged(folder, path):
                _rename_twice(folder, path)
            return
        except OSError as error:
            if error.errno not in (*_TAKEN, errno.ENOENT):  # another process was faster
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


_ATTEMPTS = 100
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # what renaming a folder to a taken name raises


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step; false if it cannot be done here.

    Raises:
        FileNotFoundError: one is missing.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    if ctypes.get_errno() == errno.ENOENT:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return False  # NFS, for one


def _rename_twice(folder: Path, path: Path) -> None:
    """Move what is at `path` away, and rename `folder` to it. In between there is a moment without any.

    A process that is killed in this moment leaves the old folder, and the next `create_folder` puts it back.
    """
    replaced = folder.with_suffix(".old")
    try:
        path.rename(replaced)
    except OSError as error:
        if error.errno != errno.EXDEV:  # a folder in a lower layer of overlayfs
            raise
        shutil.copytree(path, replaced, symlinks=True)
        shutil.rmtree(path)
    try:
        folder.rename(path)
    except OSError:
        try:
            replaced.rename(path)
        except OSError as error:
            if error.errno in _TAKEN:  # else it is the only copy, and the next `create_folder` puts it back
                _remove(replaced)
        raise
    _remove(replaced)


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
        MacError: it cannot be read, has too many rows, or its rows are not as long as its header. The message
            ends with `remedy`, what to do.
    """
    try:
        reader = csv.reader(io.StringIO(_read(path, remedy), newline=""), strict=True)
        header, *rows = islice(reader, MOST_ROWS + 2)
        if len(rows) > MOST_ROWS:
            raise ValueError(f"it has more than {MOST_ROWS} rows")
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
    try:
        with regular(path) as file:
            content = file.read(MOST_TEXT + 1)
    except FileNotFoundError:
        raise MacError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    if len(content) > MOST_TEXT:
        raise MacError(f"{path}: has more than {MOST_TEXT >> 20} MiB; {remedy}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MacError(f"{path}: is no UTF-8 text ({error.reason}); {remedy}") from None


# What is read takes up to 25 times these bytes of memory. 1,000 epochs of 25 fits are 25,000 rows of about
# 150 bytes; the metrics of 30 methods on 1,000 classes are 8 MiB.
MOST_TEXT = 16 << 20  # bytes of a JSON or CSV file, or of an attribute
MOST_ROWS = 100_000  # of a CSV file that is read
_MOST_DIGITS = 300  # of a whole number; a float has no more
_DEEPEST = 32  # levels of JSON


_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def as_cell(value: object) -> object:
    """A value for a table that spreadsheets open too: text that they would run as a formula begins with '.

    Numbers stay, in text too. Source: OWASP, CSV Injection.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, completely or not at all. Text that spreadsheets would run is marked, see `as_cell`.

    Args:
        rows: all with the same keys.
        columns: the keys in order; None takes those of the first row.
    """
    names = list(columns if columns is not None else rows[0])
    lines = [_line(names)]
    for row in rows:
        lines.append(_line([row[name] for name in names]))
    write_text(path, "".join(lines))


def _line(cells: Sequence[object]) -> str:
    """A line of CSV. The writer is told that lines end in CR LF, else it does not quote a CR in a cell."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([as_cell(cell) for cell in cells])
    return line.getvalue().removesuffix("\r\n") + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all. Bytes of a name that are not UTF-8 are escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def regular(path: Path) -> BinaryIO:
    """A file that a user named, opened to be read.

    Opening a named pipe waits for a writer, and reading a device may never end. So these are refused.

    Raises:
        MacError: it is no regular file.
        OSError: it cannot be opened.
    """
    try:
        _check_regular(path, path.stat())
        opened = open(path, "rb", opener=_not_waiting)  # noqa: SIM115 (the caller closes it)
    except ValueError as error:  # a null character in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        _check_regular(path, os.fstat(opened.fileno()))  # what was looked at may have been replaced
    except MacError:
        opened.close()
        raise
    return opened


def _not_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise MacError(f"{path}: is {kind}, and no file; name a file")


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
