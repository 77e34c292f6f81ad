"""Published datasets from their official places: resumed, checked, unpacked to where the reader looks for them.

gdown carries the bytes (also from Google Drive, where CelebA lies); addresses and digests are torchvision's where it has them.
"""

import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import CIFAR10, MNIST, CelebA, FashionMNIST
from torchvision.datasets.utils import check_integrity, extract_archive

from pipeline.compute.progress import Progress, log
from pipeline.errors import MacError, first_line

MEGABYTE = 1_000_000
RETRIES = 3  # of a transfer that breaks off


@dataclass(frozen=True)
class Remote:
    """One file to fetch.

    Attributes:
        md5: hex digest, or None where the publishers give none (a tar.gz has a checksum of its own).
        makes: what is there once it is unpacked, relative to the folder; the file's own name if it is no archive.
    """

    name: str
    url: str
    md5: str | None
    makes: str


@dataclass(frozen=True)
class Published:
    """A dataset's files.

    Attributes:
        folder: where they go by default; the presets look there.
        page: where a person finds them, and their terms.
    """

    folder: str
    page: str
    terms: str
    remotes: tuple[Remote, ...]


def _mnist(kind: type[MNIST], folder: str) -> tuple[Remote, ...]:
    return tuple(Remote(name, kind.mirrors[0] + name, md5, f"{folder}/raw/{name.removesuffix('.gz')}") for name, md5 in kind.resources)


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
            ),
        ),
    ),
    "celeba": Published(
        folder="data/raw/celeba",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        terms="non-commercial research",
        remotes=tuple(
            Remote(name, f"https://drive.google.com/uc?id={identifier}", md5, name.removesuffix(".zip"))
            for identifier, md5, name in CelebA.file_list
            if name in {"img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"}
        ),
    ),
    "mnist": Published("data/raw/dominoes", "http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0", _mnist(MNIST, "MNIST")),
    "fashion_mnist": Published(
        "data/raw/dominoes", "https://github.com/zalandoresearch/fashion-mnist", "MIT", _mnist(FashionMNIST, "FashionMNIST")
    ),
    "cifar10": Published(
        folder="data/raw/dominoes",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        terms="cite Krizhevsky 2009",
        remotes=(Remote(CIFAR10.filename, CIFAR10.url, CIFAR10.tgz_md5, CIFAR10.base_folder),),
    ),
}


def download(name: str, folder: Path | None = None, mirror: str | None = None) -> Path:
    """Fetch, check and unpack what is not there yet; a transfer that was cut off continues.

    Files that were put into the folder by hand are checked and unpacked likewise.

    Args:
        name: one of PUBLISHED.
        folder: where to, instead of the dataset's own place.
        mirror: URL of a folder that holds the same files, used instead of the official place.

    Returns:
        The folder.

    Raises:
        MacError: no network, a quota, a digest that does not fit, or no room; with the way to do it by hand.
    """
    published = PUBLISHED[name]
    folder = Path(published.folder) if folder is None else folder
    log.info("%s: %s; terms: %s", name, published.page, published.terms)
    for remote in published.remotes:
        file = (folder / remote.makes).with_name(remote.name)
        if (folder / remote.makes).exists() and (remote.makes != remote.name or _is_whole(file, remote)):
            log.info("%s is there already", folder / remote.makes)
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists() and not _is_whole(file, remote):
                raise MacError(f"{file}: is not the published file (its MD5 is not {remote.md5}); remove it and run this again")
            if not file.exists():
                _transfer(remote, file, published, mirror)
            if remote.makes != remote.name:
                _unpack(file, folder, remote)
        except OSError as error:
            raise MacError(f"{file}: cannot be written ({first_line(error)})") from None
    return folder


def _is_whole(file: Path, remote: Remote) -> bool:
    return bool(check_integrity(str(file), remote.md5))


def _transfer(remote: Remote, file: Path, published: Published, mirror: str | None) -> None:
    try:
        import gdown
        from requests import RequestException
    except ImportError:
        raise MacError("downloads need gdown: pip install 'mac-robust[download]'") from None
    url = f"{mirror.rstrip('/')}/{remote.name}" if mirror else remote.url
    by_hand = f"by hand: put {remote.name} from {published.page} into {file.parent} and run this again"
    log.info("fetching %s", url)
    bar: Progress | None = None
    told = 0

    def progress(so_far: int, total: int | None) -> None:
        nonlocal bar, told
        if bar is None:
            bar = Progress(remote.name, (total or 0) // MEGABYTE, "MB")
        bar.update(so_far // MEGABYTE - told)
        told = so_far // MEGABYTE

    try:
        gdown.download(url, str(file), quiet=True, use_cookies=False, resume=True, timeout=30, retries=RETRIES, progress=progress)
    except gdown.FileURLRetrievalError as error:  # Google Drive's quota, or a file that is gone
        raise MacError(f"{url}: Google Drive does not give it ({first_line(error)}); try again in a day, or {by_hand}") from None
    except (gdown.DownloadError, RequestException) as error:
        raise MacError(f"{url}: cannot be downloaded ({first_line(error)}); run this again to continue, or {by_hand}") from None
    finally:
        if bar is not None:
            bar.__exit__()
    if not _is_whole(file, remote):
        file.unlink()
        raise MacError(f"{url}: is not the published file (its MD5 is not {remote.md5}) and is removed; run this again, or {by_hand}")


def _unpack(file: Path, folder: Path, remote: Remote) -> None:
    """Unpack beside the place where the contents go, so that what is there is whole."""
    log.info("unpacking %s", file)
    with tempfile.TemporaryDirectory(prefix=".unpacking.", suffix=".tmp", dir=folder) as name:
        unpacked = Path(name)
        try:
            if file.name.endswith(".tar.gz"):
                with tarfile.open(file) as archive:
                    archive.extractall(unpacked, filter="data")  # nothing outside the folder
                    while archive.fileobj and archive.fileobj.read(MEGABYTE):  # gzip checks its CRC at the very end
                        pass
                made = unpacked / remote.makes
            elif file.suffix == ".zip":
                extract_archive(str(file), name)
                made = unpacked / remote.makes
            else:
                extract_archive(str(file), name)
                made = unpacked / file.stem
        except (tarfile.TarError, EOFError, OSError, RuntimeError, ValueError) as error:
            raise MacError(f"{file}: cannot be unpacked ({first_line(error)}); remove it and run this again") from None
        if not made.exists():
            raise MacError(f"{file}: does not hold {remote.makes}; remove it and run this again")
        shutil.move(made, folder / remote.makes)
