"""Unpacks archives from the network. What is in them is not trusted, whatever version of Python reads them.

Only regular files and folders are made, one by one, in a fresh folder, with the permissions of new files.
Links, devices, names that lead elsewhere or collide, and more bytes or files than expected are refused.
"""

import gzip
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from pipeline.errors import MacError, first_line, quoted
from pipeline.store import create_folder, replacing

_CHUNK = 1 << 20
_HEADERS = 1 << 16  # bytes of a tar file that its headers may take between two members
_LONGEST_PART = 255  # bytes of a name on most file systems


@dataclass(frozen=True)
class Limit:
    """The most that may come out of an archive."""

    bytes: int
    files: int


@dataclass(frozen=True)
class _Member:
    """A file in an archive; or a folder, which has no `contents`."""

    name: str
    size: int
    contents: IO[bytes] | None


class _RefusedError(Exception):
    """An archive that is damaged, or that is not what was expected."""


# What the readers of the standard library raise at a damaged archive, besides OSError.
_BROKEN = (
    _RefusedError,
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    RuntimeError,
    ValueError,
)


def unpack(file: Path, made: Path, limit: Limit) -> None:
    """Unpack an archive: the folder `made.name` in a .tar.gz or .zip, or the only file of a .gz.

    Args:
        made: where it is put. It is complete there, or not there at all.

    Raises:
        MacError: the archive is refused, does not hold the folder, or there is no space on the disk.
    """
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                check_space(made.parent, sum(info.file_size for info in archive.infolist()))
                _unpack_folder(_in_zip(archive), made, limit)
        else:
            check_space(made.parent, _stated_size(file))
            with gzip.open(file) as opened:
                if file.name.endswith(".tar.gz"):
                    _unpack_folder(_in_tar(_Bounded(opened)), made, limit)
                else:
                    with replacing(made) as temporary, temporary.open("xb") as out:
                        _copy(_Bounded(opened, limit.bytes), out)
    except _BROKEN as error:
        raise MacError(
            f"{file}: cannot be unpacked ({first_line(error)}); remove it and run this again"
        ) from None


def check_space(folder: Path, needed: int) -> None:
    """Check that a disk has space for so many bytes.

    Raises:
        MacError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        found = f"{free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are needed"
        raise MacError(f"{folder}: no space on the disk ({found}); free some and run this again")


def _stated_size(file: Path) -> int:
    """What a gzip file says of its unpacked size, modulo 4 GiB."""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 4))
        return int.from_bytes(opened.read(4), "little")


def _unpack_folder(members: Iterable[_Member], made: Path, limit: Limit) -> None:
    names, count, total = _Names(), 0, 0
    with create_folder(made) as temporary:
        for member in members:
            count, total = count + 1, total + member.size
            if count > limit.files or total > limit.bytes:
                raise _RefusedError(f"it holds more than {limit.files} files or {limit.bytes} bytes")
            top, *parts = names.checked(member)
            if top != made.name:  # such as __MACOSX
                continue
            path = temporary.joinpath(*parts)
            if member.contents is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                _copy(member.contents, out)
                if out.tell() != member.size:
                    raise _RefusedError(
                        f"{quoted(member.name)}: {out.tell()} bytes, {member.size} were announced"
                    )
        if not any(temporary.iterdir()):
            raise _RefusedError(f"it does not hold {made.name}")


def _copy(contents: "IO[bytes] | _Bounded", out: BinaryIO) -> None:
    while chunk := contents.read(_CHUNK):
        out.write(chunk)


class _Names:
    """The names of an archive's members: each is inside, and no two are one on another file system."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}  # spelling, and whether it is a file

    def checked(self, member: _Member) -> tuple[str, ...]:
        """The parts of a member's name."""
        name, parts = member.name, PurePosixPath(member.name).parts
        if not parts or name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\\" in name:
            raise _RefusedError(f"{quoted(name)}: a name that leads out of the folder")
        if (
            not name.isprintable()
            or len(name) > 1000
            or max(len(os.fsencode(p)) for p in parts) > _LONGEST_PART
        ):
            raise _RefusedError(f"{quoted(name)}: no name for a file")
        for depth in range(1, len(parts) + 1):
            spelling = "/".join(parts[:depth])
            is_file = depth == len(parts) and member.contents is not None
            key = unicodedata.normalize("NFC", spelling).casefold()
            if (is_file and key in self._seen) or self._seen.setdefault(key, (spelling, is_file)) != (
                spelling,
                is_file,
            ):
                raise _RefusedError(
                    f"{name}: it is there twice, or differs from another name in its case only"
                )
        return parts


class _Bounded:
    """A stream that may be read until `left` bytes are used up."""

    def __init__(self, opened: gzip.GzipFile, left: int = 0) -> None:
        self._opened, self.left = opened, left

    def read(self, size: int) -> bytes:
        try:
            found = self._opened.read(min(size, self.left + 1))
        except OSError as error:  # a damaged gzip file
            raise _RefusedError(first_line(error)) from None
        self.left -= len(found)
        if self.left < 0:
            raise _RefusedError("it holds more than it should")
        return found


def _in_tar(stream: _Bounded) -> Iterator[_Member]:
    """The members of a tar file. Between them only headers are read, so no header takes much memory."""
    stream.left = _HEADERS
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        while member := archive.next():
            if member.isdir():
                yield _Member(member.name, 0, None)
            elif (
                member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or member.size < 0
            ):
                raise _RefusedError(f"{quoted(member.name)}: neither a file nor a folder")
            else:
                stream.left = member.size + _HEADERS
                contents = archive.extractfile(member)
                assert contents is not None
                yield _Member(member.name, member.size, contents)
                while contents.read(_CHUNK):  # what was not wanted
                    pass
            stream.left = _HEADERS
    while stream.read(_CHUNK):  # gzip checks its CRC only at the end
        pass


def _in_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _RefusedError(f"{quoted(name)}: neither a file nor a folder")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _RefusedError(f"{quoted(name)}: is encrypted, or packed in an unknown way")
        if info.is_dir():
            yield _Member(name, 0, None)
        else:
            with archive.open(info) as contents:
                yield _Member(name, info.file_size, contents)
