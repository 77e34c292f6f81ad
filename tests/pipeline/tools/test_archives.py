"""Archives that were made to do harm are refused, and leave nothing."""

import gzip
import io
import os
import shutil
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import MacError
from pipeline.tools.archives import Limit, unpack

LIMIT = Limit(100_000, 10)
Tar = Callable[[tarfile.TarFile], None]


def entry(
    name: str, contents: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "", **more: object
) -> Tar:
    """Adds one member to a tar file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(contents)
    for key, value in more.items():
        setattr(info, key, value)
    return lambda tar: tar.addfile(info, io.BytesIO(contents))


def chain(tar: tarfile.TarFile) -> None:
    """CVE-2025-4517: links that lead out once their joined path is longer than a path may be."""
    place, long = "d", "l" * 247
    for step in "abcdefghijklmnop":
        entry(f"{place}/{long}", b"", tarfile.DIRTYPE)(tar)
        entry(f"{place}/{step}", b"", tarfile.SYMTYPE, long)(tar)
        place = f"{place}/{long}"
    there = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    entry(f"d/{there}", b"", tarfile.SYMTYPE, "../" * 16)(tar)
    entry("d/escape", b"", tarfile.SYMTYPE, f"{there}/../..")(tar)
    entry("d/escape/outside")(tar)


def sparse(tar: tarfile.TarFile) -> None:
    entry("d/a", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.realsize": "10000000000000"})(tar)


def many(tar: tarfile.TarFile) -> None:
    for number in range(11):
        entry(f"d/{number}")(tar)


HOSTILE: dict[str, list[Tar]] = {
    "neither a file nor a folder": [
        entry("d/link", b"", tarfile.SYMTYPE, "/etc/passwd"),
        entry("d/hard", b"", tarfile.LNKTYPE, "d/ok"),
        entry("d/pipe", b"", tarfile.FIFOTYPE),
        entry("d/device", b"", tarfile.CHRTYPE, devmajor=1, devminor=5),
        entry("d/sub", b"", tarfile.SYMTYPE, ".."),
        chain,
        sparse,
    ],
    "leads out of the folder": [entry(n) for n in ("/d/x", "d/../../x", "..", "C:/x", "d/a\\..\\b", "")],
    "no name for a file": [
        entry(n) for n in ("d/" + "x" * 256, "d/a\nb", "d/a\x1bb", "d/" + "x/" * 600, "d/\udcff")
    ],
    "twice, or differs": [entry(n) for n in ("d/ok", "d/OK", "D/ok", "d/ok/x", "d/e\u0301")],
    "more than 10 files or 100000 bytes": [
        entry("d/large", bytes(100_001)),
        many,
    ],
    "it holds more than it should": [
        entry("d/a", pax_headers={"comment": "x" * 300_000}),
        entry("d/" + "x" * 300_000),
    ],
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_hostile_tar_file_is_refused(reason: str, tmp_path: Path) -> None:
    for number, add in enumerate(HOSTILE[reason]):
        file, folder = tmp_path / f"{number}.tar.gz", tmp_path / f"to{number}"
        folder.mkdir()
        with tarfile.open(file, "w:gz", format=tarfile.PAX_FORMAT) as tar:
            entry("d/ok")(tar)
            entry("d/\xe9")(tar)
            add(tar)
        with pytest.raises(MacError, match=rf"{number}.tar.gz: cannot be unpacked \(.*{reason}"):
            unpack(file, folder / "d", LIMIT)
        assert not list(folder.iterdir())
    assert {path.name[:2] for path in tmp_path.iterdir()} <= {f"{n}." for n in range(9)} | {"to"}


def test_what_is_wanted_comes_out_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        entry("./d/e", b"", tarfile.DIRTYPE, mode=0)(tar)
        entry("d/a b/é.jpg", b"123", mode=0o6777, uid=1)(tar)
        entry("__MACOSX/d/x", bytes(70_000))(tar)
        entry("d/empty", b"", mode=0)(tar)
    unpack(file, tmp_path / "d", LIMIT)
    assert {str(path.relative_to(tmp_path)) for path in (tmp_path / "d").rglob("*")} == {
        "d/e",
        "d/a b",
        "d/a b/é.jpg",
        "d/empty",
    }
    assert (tmp_path / "d/a b/é.jpg").read_bytes() == b"123"
    umask = os.umask(0)
    os.umask(umask)
    for path in (tmp_path / "d/a b/é.jpg", tmp_path / "d/empty"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    (tmp_path / "new").mkdir()
    whole = file.read_bytes()
    for damaged in (whole[:-4], whole[:60], whole[:-9] + b"!" + whole[-8:], b"", b"no gzip"):
        file.write_bytes(damaged)
        with pytest.raises(MacError, match=r"x.tar.gz: cannot be unpacked"):
            unpack(file, tmp_path / "new" / "d", LIMIT)
        assert not list((tmp_path / "new").iterdir())


def test_a_bomb_takes_neither_disk_nor_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(1, 0, 1 << 40))
    zeros = gzip.compress(bytes(50_000_000))
    (tmp_path / "x.gz").write_bytes(zeros)
    header = tarfile.TarInfo("d/x")
    header.type, header.size = tarfile.XHDTYPE, 50_000_000
    pax = gzip.compress(header.tobuf(), 1) + zeros
    (tmp_path / "x.tar.gz").write_bytes(pax)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/x", bytes(50_000_000))
    tracemalloc.start()
    for name in ("x.gz", "x.tar.gz", "x.zip"):
        with pytest.raises(MacError, match=f"{name}: cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "d", LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "mode", "flag", "reason"),
    [
        ("d/link", stat.S_IFLNK | 0o777, 0, "neither a file nor a folder"),
        ("d/pipe", stat.S_IFIFO | 0o666, 0, "neither a file nor a folder"),
        ("d/secret", 0, 1, "is encrypted"),
        ("../x", 0, 0, "leads out of the folder"),
        ("d/../../x", 0, 0, "leads out of the folder"),
        ("/x", 0, 0, "leads out of the folder"),
        ("d\\x", 0, 0, "leads out of the folder"),
        ("d/OK", 0, 0, "twice, or differs"),
        ("d/ok/", 0, 0, "twice, or differs"),
    ],
)
def test_a_hostile_zip_file_is_refused(name: str, mode: int, flag: int, reason: str, tmp_path: Path) -> None:
    file, folder = tmp_path / "x.zip", tmp_path / "to"
    folder.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("d/ok", b"x")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"")
        archive.filelist[1].flag_bits |= flag
    with pytest.raises(MacError, match=rf"x.zip: cannot be unpacked \(.*{reason}"):
        unpack(file, folder / "d", LIMIT)
    assert not list(folder.iterdir())


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(2_000_000)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(9, 8, 1_000_000))
    with pytest.raises(MacError, match=r"no space on the disk \(1 MB are free, 2 MB are needed\)"):
        unpack(tmp_path / "x.gz", tmp_path / "x", Limit(10**9, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["x.gz"]
