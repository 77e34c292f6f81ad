"""Downloads from an HTTP server on loopback that serves made-up files in the published layouts."""

import hashlib
import io
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import pytest

from pipeline.datasets import celeba, dominoes
from pipeline.errors import MacError
from pipeline.tools import download
from tests import official_layouts


class Server(ThreadingHTTPServer):
    """Serves a folder, with ranges; `cut` bytes into a response the connection breaks off."""

    cut: int | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Hostile(Server):
    """Answers every request with a body that never ends."""

    first, step, pause, announced = 0, 1 << 20, 0.0, None

    def __init__(self, **how: object) -> None:
        super().__init__(Path())
        self.__dict__ |= how
        self.RequestHandlerClass = _Endless
        self.sent = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Endless(BaseHTTPRequestHandler):
    server: Hostile

    def do_GET(self) -> None:
        self.send_response(200)
        if self.server.announced is not None:
            self.send_header("Content-Length", str(self.server.announced))
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(self.server.step))
                self.server.sent += self.server.step
                time.sleep(self.server.pause)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        contents = file.read_bytes()
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0  # type: ignore[index]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(contents) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(contents) - 1}/{len(contents)}")
        self.end_headers()
        self.wfile.write(contents[start : None if self.server.cut is None else start + self.server.cut])

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Archives of made-up datasets, whose digests stand in for the published ones."""
    folder = tmp_path / "served"
    folder.mkdir()
    official_layouts.mnist(tmp_path / "mnist", train=100)
    for file in (tmp_path / "mnist/MNIST/raw").glob("*.gz"):
        file.rename(folder / file.name)
    official_layouts.cifar10(tmp_path / "cifar")
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "cifar/cifar-10-batches-py", "cifar-10-batches-py")
    official_layouts.celeba(tmp_path / "celeba", "txt")
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for file in (tmp_path / "celeba/img_align_celeba").iterdir():
            archive.write(file, f"img_align_celeba/{file.name}")
    for file in (tmp_path / "celeba").glob("*.txt"):
        file.rename(folder / file.name)
    for name, published in download.PUBLISHED.items():
        remotes = []
        for remote in published.remotes:
            file = folder / remote.name
            if file.exists():
                md5 = remote.md5 and hashlib.md5(file.read_bytes()).hexdigest()
                remotes.append(replace(remote, md5=md5))
        monkeypatch.setitem(
            download.PUBLISHED, name, replace(published, remotes=tuple(remotes) or published.remotes)
        )
    monkeypatch.setattr(download, "RETRIES", 0)
    serving = Server(folder)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()


def fetch(server: Server, name: str, folder: Path) -> None:
    assert download.download(name, folder, server.url) == folder


def error_of(server: Server, name: str, folder: Path) -> str:
    with pytest.raises(MacError) as raised:
        fetch(server, name, folder)
    return str(raised.value)


def test_what_comes_over_an_open_line_has_a_digest() -> None:
    for published in download.PUBLISHED.values():
        for remote in published.remotes:
            assert remote.url.startswith("https://") or remote.md5


def test_what_is_downloaded_is_what_the_readers_read(server: Server, tmp_path: Path) -> None:
    for name in ("mnist", "cifar10"):
        fetch(server, name, tmp_path / "dominoes")
    dominoes.read(tmp_path / "dominoes", dominoes.Options()).check()
    fetch(server, "celeba", tmp_path / "faces")
    dataset = celeba.read(tmp_path / "faces", celeba.Options())
    assert dataset.records[0].image.load(dataset.root).size == (178, 218)
    asked = len(server.asked)
    fetch(server, "celeba", tmp_path / "faces")
    assert len(server.asked) == asked  # nothing is fetched twice
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_transfer_that_broke_off_continues(server: Server, tmp_path: Path) -> None:
    server.cut = 600_000
    message = error_of(server, "cifar10", tmp_path / "d")
    assert "cannot be downloaded (Download is incomplete: received 524288 bytes" in message
    assert (
        "run this again to continue, or by hand: put cifar-10-python.tar.gz from https://www.cs.toronto.edu"
        in message
    )
    assert not (tmp_path / "d/cifar-10-batches-py").exists()
    server.cut = None
    fetch(server, "cifar10", tmp_path / "d")
    assert server.asked[-1] == ("/cifar-10-python.tar.gz", "bytes=524288-")
    assert (tmp_path / "d/cifar-10-batches-py/test_batch").is_file()


def test_another_file_than_the_published_one_is_refused(server: Server, tmp_path: Path) -> None:
    archive = server.folder / "cifar-10-python.tar.gz"
    contents = archive.read_bytes()
    archive.write_bytes(contents[:-1] + b"!")
    assert "is not the published file (its MD5 is not" in error_of(server, "cifar10", tmp_path / "d")
    assert not list((tmp_path / "d").iterdir())
    archive.write_bytes(contents)
    fetch(server, "cifar10", tmp_path / "d")


def test_no_such_file_and_no_network(server: Server, tmp_path: Path) -> None:
    (server.folder / "img_align_celeba.zip").unlink()
    assert "img_align_celeba.zip: cannot be downloaded (404 Client Error" in error_of(
        server, "celeba", tmp_path / "d"
    )
    server.shutdown()
    server.server_close()
    message = error_of(server, "mnist", tmp_path / "d")
    assert "cannot be downloaded (" in message
    assert "by hand: put train-images-idx3-ubyte.gz from http://yann.lecun.com/exdb/mnist/ into" in message


def test_google_drive_s_quota_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, *_: object, **__: object) -> None:
        assert url.startswith("https://drive.google.com/uc?id=")
        raise gdown.FileURLRetrievalError(
            "Too many users have viewed or downloaded this file recently.\nPlease try later."
        )

    monkeypatch.setattr(gdown, "download", refuse)
    with pytest.raises(MacError) as raised:
        download.download("celeba", tmp_path / "d")
    message = str(raised.value)
    reason = "Too many users have viewed or downloaded this file recently."
    assert f"Google Drive does not give it ({reason}); try again in a day" in message
    assert "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html" in message


def test_files_that_were_put_there_by_hand_are_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    file = folder / "cifar-10-python.tar.gz"
    contents = (server.folder / file.name).read_bytes()
    file.write_bytes(contents[:-1])
    assert "is not the published file" in error_of(server, "cifar10", folder)
    assert file.exists()  # the user's, not ours to remove
    file.write_bytes(contents)
    fetch(server, "cifar10", folder)
    assert server.asked == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waterbirds with a published size of 1 MB, so that at most 2 MB are fetched."""
    published = download.PUBLISHED["waterbirds"]
    (remote,) = published.remotes
    remotes = (replace(remote, megabytes=1),)
    monkeypatch.setitem(download.PUBLISHED, "waterbirds", replace(published, remotes=remotes))
    monkeypatch.setattr(download, "RETRIES", 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("announced", [None, 10**15, 10_000_000])
def test_a_body_that_does_not_end_is_ended(announced: int | None, tmp_path: Path) -> None:
    server = Hostile(announced=announced)
    assert "sends more than 2 MB, so it is not the published file; by hand: put" in error_of(
        server, "waterbirds", tmp_path / "d"
    )
    assert not list((tmp_path / "d").iterdir())
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("small")
def test_a_body_that_drips_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SLOWEST", 0.2)
    server = Hostile(step=1, pause=0.02)
    message = error_of(server, "waterbirds", tmp_path / "d")
    assert "sends less than 512 KB in 0 s; run this again to continue" in message
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(9, 8, 1_000))
    server = Hostile(announced=1_900_000)
    assert "no space on the disk (0 MB are free" in error_of(server, "waterbirds", tmp_path / "d")
    assert server.sent <= 8 << 20
    server.shutdown()
    server.server_close()


def test_what_a_killed_unpacking_left_is_removed(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    dead = int(subprocess.run(command, capture_output=True, check=True).stdout)
    for name in (f".cifar-10-batches-py.{dead}@{socket.gethostname()}.tmp", ".unpacking.x1y2.tmp"):
        (tmp_path / "d" / name / "half").mkdir(parents=True)
    fetch(server, "cifar10", tmp_path / "d")
    assert {path.name for path in (tmp_path / "d").iterdir()} == {
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    }


def waterbirds_archive(file: Path, *names: str) -> None:
    with tarfile.open(file, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())


def test_an_archive_stays_within_its_folder(server: Server, tmp_path: Path) -> None:
    archive = server.folder / "waterbird_complete95_forest2water2.tar.gz"
    waterbirds_archive(archive, "waterbird_complete95_forest2water2/metadata.csv", "../../escaped.txt")
    assert "cannot be unpacked" in error_of(server, "waterbirds", tmp_path / "d")
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not (tmp_path / "d/waterbird_complete95_forest2water2").exists()
    (tmp_path / "d" / archive.name).unlink()
    waterbirds_archive(archive, "something/else.txt")
    assert "does not hold waterbird_complete95_forest2water2" in error_of(
        server, "waterbirds", tmp_path / "d"
    )
    (tmp_path / "d" / archive.name).unlink()
    waterbirds_archive(archive, "waterbird_complete95_forest2water2/metadata.csv")
    archive.write_bytes(archive.read_bytes()[:-12])
    assert "cannot be unpacked" in error_of(server, "waterbirds", tmp_path / "d")
    (tmp_path / "d" / archive.name).unlink()
    waterbirds_archive(archive, "waterbird_complete95_forest2water2/metadata.csv")
    fetch(server, "waterbirds", tmp_path / "d")
    assert (tmp_path / "d/waterbird_complete95_forest2water2/metadata.csv").is_file()
