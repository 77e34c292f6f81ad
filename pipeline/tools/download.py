"""Fetches published datasets from their official places, checks them, and unpacks them for the readers.

gdown fetches the files; it can also fetch from Google Drive, where CelebA is. Addresses and digests are those
of torchvision, if it has them.
"""

import glob
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import CIFAR10, MNIST, CelebA, FashionMNIST
from torchvision.datasets.utils import check_integrity

from pipeline.compute.progress import Progress, log
from pipeline.errors import MacError, first_line
from pipeline.tools.archives import Limit, check_space, unpack

MEGABYTE = 1_000_000
RETRIES = 3  # how often a transfer that breaks off is tried again
SLOWEST = 120.0  # most seconds for 512 KB, the pieces that gdown gets
# How much more may come than is published.
ROOM = 2
UNPACKED = 8  # times the size of the archive


@dataclass(frozen=True)
class Remote:
    """One file to fetch.

    Attributes:
        md5: hex digest; None if none is published (a tar.gz has a checksum of its own).
        makes: the result of unpacking it, relative to the folder; the file's own name if it is no archive.
        megabytes: the published size, rounded up.
        files: how many files are in the archive, rounded up.
    """

    name: str
    url: str
    md5: str | None
    makes: str
    megabytes: int
    files: int = 1

    @property
    def most(self) -> int:
        """The most bytes that are fetched."""
        return ROOM * self.megabytes * MEGABYTE


@dataclass(frozen=True)
class Published:
    """A dataset's files.

    Attributes:
        folder: the default folder; the presets look there.
        page: address of the page with the files, for people.
        terms: the terms of use, in short.
        remotes: the files.
    """

    folder: str
    page: str
    terms: str
    remotes: tuple[Remote, ...]


def _mnist(kind: type[MNIST], folder: str) -> tuple[Remote, ...]:
    """The files of MNIST, or of a dataset in its form."""
    remotes = []
    for name, md5 in kind.resources:
        remotes.append(
            Remote(name, kind.mirrors[0] + name, md5, f"{folder}/raw/{name.removesuffix('.gz')}", 27)
        )
    return tuple(remotes)


def _celeba(*wanted: str) -> tuple[Remote, ...]:
    """Some files of CelebA, by name."""
    remotes = []
    for identifier, md5, name in CelebA.file_list:
        if name in wanted:
            url = f"https://drive.google.com/uc?id={identifier}"
            megabytes = 1444 if name.endswith(".zip") else 27
            remotes.append(Remote(name, url, md5, name.removesuffix(".zip"), megabytes, 203_000))
    return tuple(remotes)


PUBLISHED = {
    "waterbirds": Published(
        folder="data/raw",
        page="https://github.com/kohpangwei/group_DRO",
        terms="its birds are from CUB-200-2011: non-commercial research and education",
        remotes=(
            Remote(
                "waterbird_complete95_forest2water2.tar.gz",
                "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz",
                None,
                "waterbird_complete95_forest2water2",
                600,
                13_000,
            ),
        ),
    ),
    "celeba": Published(
        folder="data/raw/celeba",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        terms="non-commercial research",
        remotes=_celeba("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"),
    ),
    "mnist": Published(
        folder="data/raw/dominoes",
        page="http://yann.lecun.com/exdb/mnist/",
        terms="CC BY-SA 3.0",
        remotes=_mnist(MNIST, "MNIST"),
    ),
    "fashion_mnist": Published(
        folder="data/raw/dominoes",
        page="https://github.com/zalandoresearch/fashion-mnist",
        terms="MIT",
        remotes=_mnist(FashionMNIST, "FashionMNIST"),
    ),
    "cifar10": Published(
        folder="data/raw/dominoes",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        terms="cite Krizhevsky 2009",
        remotes=(Remote(CIFAR10.filename, CIFAR10.url, CIFAR10.tgz_md5, CIFAR10.base_folder, 171, 10),),
    ),
}


def download(name: str, folder: Path | None = None, mirror: str | None = None) -> Path:
    """Fetch, check and unpack what is not there yet. An interrupted transfer is continued.

    Files that were put into the folder by hand are checked and unpacked too.

    Args:
        name: one of PUBLISHED.
        folder: the folder to use instead of the default.
        mirror: URL of a folder with the same files, to use instead of the official place.

    Returns:
        The folder.

    Raises:
        MacError: no network, a quota, a wrong digest, a file or archive that is too large or refused, or no
            space on the disk. If the download failed, the message says how to do it by hand.
    """
    published = PUBLISHED[name]
    folder = Path(published.folder) if folder is None else folder
    log.info("%s: %s; terms: %s", name, published.page, published.terms)
    for left in folder.glob(".unpacking.*.tmp"):  # by an earlier version
        shutil.rmtree(left, ignore_errors=True)
    for remote in published.remotes:
        file = (folder / remote.makes).with_name(remote.name)
        try:
            _provide(remote, file, folder, published.page, mirror)
        except OSError as error:
            raise MacError(f"{file}: cannot be written ({first_line(error)})") from None
    return folder


def _provide(remote: Remote, file: Path, folder: Path, page: str, mirror: str | None) -> None:
    """Fetch one file and unpack it, unless this is done already."""
    made, is_archive = folder / remote.makes, remote.makes != remote.name
    if made.exists() and (is_archive or _is_whole(made, remote)):
        log.info("%s is there already", made)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        _fetch(remote, file, page, mirror)
    elif not _is_whole(file, remote):
        raise MacError(
            f"{file}: is not the published file (its MD5 is not {remote.md5}); remove it and run this again"
        )
    if is_archive:
        log.info("unpacking %s", file)
        unpack(file, made, Limit(UNPACKED * remote.megabytes * MEGABYTE, ROOM * remote.files + 100))


def _is_whole(file: Path, remote: Remote) -> bool:
    return bool(check_integrity(str(file), remote.md5))


class _Transfer:
    """Watches the transfer of a file, which gdown reports to it: shows it, and ends it if it is endless.

    Attributes:
        stopped: set if the transfer is too slow; gdown then gives up.
    """

    def __init__(self, remote: Remote, folder: Path) -> None:
        self._remote, self._folder = remote, folder
        self._bar: Progress | None = None
        self._bytes = 0
        self.stopped = threading.Event()
        self._done = threading.Event()
        threading.Thread(target=self._stop_if_slow, daemon=True).start()

    def __call__(self, so_far: int, total: int | None) -> None:
        if max(so_far, total or 0) > self._remote.most:
            raise _TooLargeError
        if self._bar is None:
            check_space(self._folder, (total or self._remote.megabytes * MEGABYTE) - so_far)
            self._bar = Progress(self._remote.name, (total or 0) // MEGABYTE, "MB")
        self._bar.update(so_far // MEGABYTE - self._bytes // MEGABYTE)
        self._bytes = so_far

    def _stop_if_slow(self) -> None:
        before = -1
        while not self._done.wait(SLOWEST):
            if self._bytes == before:
                self.stopped.set()
            before = self._bytes

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._done.set()
        if self._bar is not None:
            self._bar.__exit__()


class _TooLargeError(Exception):
    """More comes than was published."""


def _fetch(remote: Remote, file: Path, page: str, mirror: str | None) -> None:
    """Fetch a file, or the missing part of it, and check it."""
    try:
        import gdown
        from requests import RequestException
    except ImportError:
        raise MacError("downloads need gdown: pip install 'mac-robust[download]'") from None
    url = f"{mirror.rstrip('/')}/{remote.name}" if mirror else remote.url
    by_hand = f"by hand: put {remote.name} from {page} into {file.parent} and run this again"
    log.info("fetching %s", url)
    transfer = _Transfer(remote, file.parent)
    try:
        gdown.download(
            url,
            str(file),
            quiet=True,
            use_cookies=False,
            resume=True,
            timeout=30,
            retries=RETRIES,
            progress=transfer,
            cancel=transfer.stopped,
        )
    except _TooLargeError:
        for part in file.parent.glob(f"{glob.escape(file.name)}????????.part"):
            part.unlink()
        raise MacError(
            f"{url}: sends more than {remote.most // MEGABYTE} MB, so it is not the published file; {by_hand}"
        ) from None
    except gdown.DownloadCancelled:
        raise MacError(
            f"{url}: sends less than 512 KB in {SLOWEST:.0f} s; run this again to continue, or {by_hand}"
        ) from None
    except gdown.FileURLRetrievalError as error:  # Google Drive's quota, or a file that is gone
        reason = first_line(error)
        raise MacError(
            f"{url}: Google Drive does not give it ({reason}); try again in a day, or {by_hand}"
        ) from None
    except (gdown.DownloadError, RequestException) as error:
        reason = first_line(error)
        raise MacError(
            f"{url}: cannot be downloaded ({reason}); run this again to continue, or {by_hand}"
        ) from None
    finally:
        transfer.close()
    if not _is_whole(file, remote):
        file.unlink()
        raise MacError(
            f"{url}: is not the published file (its MD5 is not {remote.md5}) and is removed; "
            f"run this again, or {by_hand}"
        )
