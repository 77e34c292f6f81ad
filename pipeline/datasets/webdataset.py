"""Tar shards in the layout of webdataset (github.com/webdataset/webdataset).

<root>/train-000000.tar, val-000000.tar, test-000000.tar        or <root>/{train,val,test}/*.tar

The members of a sample lie side by side and have its key: `a/0001.jpg`, `a/0001.cls`, `a/0001.json`. All
before the first dot of the file's name is the key, all behind it the extension. Here, the extensions other
than the image's are columns, and so are the keys of the JSON object.

Each shard's list of members is read once, with Python's tarfile, and each image where it lies: webdataset
itself reads shards from front to back, which leaves no block of images to another worker.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from pipeline.datasets.listing import LEADS_OUT, listed, not_used
from pipeline.datasets.names import shortened
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import SUFFIXES, TarMember, check_name, inside
from pipeline.datasets.table import Row, parsed, text_of
from pipeline.datasets.tabular import Columns, Entry, dataset_of, used
from pipeline.datasets.tree import FOLDERS
from pipeline.errors import MacError, first_line
from pipeline.store import regular

MOST_IMAGE = 2**28  # bytes of a member that is an image
MOST_TEXT = 2**20  # bytes of one that is text
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # as webdataset.tariterators.base_plus_ext
_ABOUT = re.compile(r"__[^/]*__($|/)")  # members passed over there too; keys that are about no image


class Options(Columns):
    """The extensions, or keys of the JSON object, that have the class and the attributes."""

    label: str = Field(default="cls", description="extension, or key of the JSON object, with the class")
    split: str | None = Field(
        default=None,
        description="as label, with train, val or test; null: the names of the shards say it, or "
        "the splits are drawn within each class",
    )


def read(root: Path, options: Options) -> Dataset:
    """Read the lists of the shards, and all members but images.

    A shard is of a split if its folder, or a word of its name (imagenet1k-validation-00.tar), is `train`,
    `val` or `test`, or a word like these that the reader `folder` takes for a split.

    Raises:
        MacError: no shards, shards of which some are of splits; one that is packed or damaged; a member that
            is a link, has a name that leads out, or is too large; a sample without image or class.
    """
    shards, notes = _shards(root)
    splits = {shard: _split(root, shard) for shard in shards}
    without = [shard for shard, split in splits.items() if split is None]
    if without and len(without) < len(shards) and not options.split:
        raise MacError(
            f"{root}: the names of some shards say no split ({', '.join(shortened(without))}), but others "
            "do; give all names one of the words train, val and test, as in train-000000.tar"
        )
    is_named = not without and not options.split
    entries = []
    for shard in shards:
        split = splits[shard] if is_named else None
        entries += [Entry(row, image, split) for row, image in _samples(root, shard, options.names)]
    if not entries:
        raise MacError(f"{root}: no images in the shards; their members should be named such as 0001.jpg")
    entries, left_out = used(entries, options, str(root))
    return dataset_of(root, entries, options, str(root), [*left_out, *notes])


def _shards(root: Path) -> tuple[list[str], list[str]]:
    """The tar files below the folder, sorted; and what is not used.

    Raises:
        MacError: there are none, some are packed, or links lead out.
    """
    listing = listed(root, "dataset.root should be the folder of the tar files")
    others = [path for kind, path in listing.unused if kind != LEADS_OUT]
    packed = [path for path in others if path.name.lower().endswith(PACKED)]
    if packed:
        raise MacError(
            f"{root / packed[0]}: is compressed, so no image of it can be read alone; unpack it to a .tar"
        )
    shards = sorted(path.as_posix() for path in others if path.suffix.lower() == ".tar")
    if not shards:
        raise MacError(f"{root}: no .tar files; dataset.root should be the folder of the shards")
    unused = [(kind, path) for kind, path in listing.unused if path.as_posix() not in shards]
    unused += [(f"{path.suffix} beside the shards", path) for path in listing.files]
    return [inside(root, shard, str(root)) for shard in shards], not_used(unused)


def _split(root: Path, shard: str) -> int | None:
    """The split that a shard's first folder or a word of its name says, if one does.

    Raises:
        MacError: they say two.
    """
    *folders, name = shard.split("/")
    words = [*folders[:1], *re.split(r"[-_.]", name)]
    found = {FOLDERS[word.casefold()] for word in words if word.casefold() in FOLDERS}
    if len(found) > 1:
        raise MacError(f"{root / shard}: its path says two splits; name it by one of train, val and test")
    return min(found, default=None)


def _samples(root: Path, shard: str, columns: Sequence[str]) -> list[tuple[Row, TarMember]]:
    """The samples of a shard, each its image and the texts of its other members.

    Raises:
        MacError: see `read`.
    """
    images: dict[str, TarMember] = {}
    texts: dict[str, dict[str, bytes]] = {}
    for member, contents in _members(root, shard, columns):
        key, extension = _named(member.name)
        if contents is not None:
            texts.setdefault(key, {})[extension] = contents
        elif key in images:
            one, other = images[key].member, member.name
            raise MacError(f"{root / shard}, sample {key}: has two images, {one} and {other}; keep one")
        else:
            name = member.name.removeprefix("./")
            images[key] = TarMember(shard, name, member.offset_data, member.size)
    if without := [key for key in texts if key not in images and not _ABOUT.match(key)]:
        raise MacError(
            f"{root / shard}, sample {without[0]}: has no image, as {len(without)} of "
            f"{len(images.keys() | texts.keys())} samples; name it such as {without[0]}.png, or take the "
            "sample out"
        )
    return [
        (_row(f"{root / shard}, sample {key}", texts.get(key, {}), columns), images[key]) for key in images
    ]


def _row(where: str, texts: Mapping[str, bytes], columns: Sequence[str]) -> Row:
    """The columns of a sample.

    Args:
        texts: the contents of its members, by extension.

    Raises:
        MacError: one is no text, or has no such column.
    """
    cells: dict[str, str | None] = {}
    for extension, contents in texts.items():
        if extension == "json":
            found = parsed(contents, where)
            cells |= {name: text_of(found[name], where, name) for name in columns if name in found}
            continue
        try:
            cells[extension] = contents.decode().strip()
        except UnicodeDecodeError as error:
            raise MacError(f"{where}: {extension} is not UTF-8 text ({error})") from None
    if missing := [name for name in columns if name not in cells]:
        raise MacError(
            f"{where}: no {', '.join(missing)}, neither as an extension nor in its JSON; of the columns "
            f"there is {', '.join(sorted(cells)) or 'none'}"
        )
    return Row(where, cells)


def _members(
    root: Path, shard: str, columns: Sequence[str]
) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """The members that are used: images, and the contents of the texts that may have the columns.

    Raises:
        MacError: the file is damaged; a member is a link or a device, leads out, or is too large.
    """
    file, names = root / shard, set[str]()
    try:
        with regular(file) as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            end = file.stat().st_size
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # which would keep all of them
                if member.isdir():
                    continue
                _require_safe(file, member, end)
                key, extension = _named(member.name)
                if not key or _ABOUT.match(member.name):
                    continue
                is_image = f".{extension}" in SUFFIXES
                if not is_image and extension != "json" and extension not in columns:
                    continue
                if member.name in names:
                    raise MacError(f"{file}: has two members {member.name}; keep one")
                names.add(member.name)
                _require_at_most(MOST_IMAGE if is_image else MOST_TEXT, file, member)
                contents = None
                if not is_image:
                    read = tar.extractfile(member)
                    contents = read.read() if read else b""
                yield member, contents
            opened.seek(tar.offset)
            if any(opened.read(tarfile.BLOCKSIZE)):  # no end of a tar file, where tarfile stops in silence
                raise MacError(
                    f"{file}: cannot be read as a tar file from byte {tar.offset:,} on; replace it"
                )
    except MacError:
        raise
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError, MemoryError) as error:
        raise MacError(f"{file}: cannot be read as a tar file ({first_line(error)}); replace it") from None


def _require_safe(file: Path, member: tarfile.TarInfo, end: int) -> None:
    """Raise an error if a member is no plain file of this tar file, with a name that stays in it."""
    check_name(member.name, str(file))
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise MacError(f"{file}: the name {member.name!r} leads out of the shard; pack it again without")
    if not member.isreg() or member.issparse():
        raise MacError(
            f"{file}: {member.name} is a link, a device or the like, no plain file; pack it again without"
        )
    if member.size < 0 or member.offset_data + member.size > end:
        raise MacError(f"{file}: {member.name} ends behind the end of the file, which is cut off; replace it")


def _require_at_most(most: int, file: Path, member: tarfile.TarInfo) -> None:
    if member.size > most:
        raise MacError(
            f"{file}: {member.name} has {member.size:,} bytes, expected at most {most:,}; take it out"
        )


def _named(name: str) -> tuple[str, str]:
    """The key of a member, and its extension in lower case; both empty if it has none."""
    found = _KEY.fullmatch(name.removeprefix("./"))
    return (found[1], found[2].lower()) if found else ("", "")
