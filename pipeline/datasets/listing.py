"""The files of a folder: the images, and all else that is there, so that nothing is left out in silence."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.datasets.names import shortened
from pipeline.datasets.sources import SUFFIXES
from pipeline.errors import MacError, first_line

# Folders that programs and disks leave behind. They and hidden folders hold no images of the dataset.
LEFT_BEHIND = frozenset(
    {"@eadir", "__macosx", "lost+found", "$recycle.bin", "recycler", "#recycle", "@recycle", "#snapshot"}
    | {"@recently-snapshot", "system volume information", "__pycache__"}
)
# Such files are not worth a word.
LEAVINGS = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})
LEADS_OUT = "link that leads out of the folder"


@dataclass
class Listing:
    """What is below a folder. All paths are relative to it.

    Attributes:
        files: the images, sorted.
        folders: all folders that may hold images.
        unused: what is not used: its kind in words, and its path.
        entered: device and inode of the folders that links lead to.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    unused: list[tuple[str, Path]] = field(default_factory=list)
    entered: set[tuple[int, int]] = field(default_factory=set)

    def require_inside(self, folder: Path, depth: int) -> None:
        """Check that no link to a folder leads out, where a split or a class may be.

        Args:
            folder: that is listed here.
            depth: of the deepest folders that matter; 1 for those in `folder`.

        Raises:
            MacError: one does.
        """
        for kind, path in self.unused:
            if kind == LEADS_OUT and len(path.parts) <= depth:
                raise MacError(
                    f"{folder / path}: is a link to {(folder / path).resolve()}, which leaves the dataset's "
                    "folder; copy or mount that folder here"
                )


def listed(folder: Path, remedy: str, root: Path | None = None) -> Listing:
    """What is below `folder`. Links to folders are entered, each folder once, if they stay in `root`.

    Args:
        remedy: ends the message if there is no such folder.
        root: the dataset's folder; `folder` itself if not given.

    Raises:
        MacError: no such folder, or one that cannot be listed.
    """
    if not folder.is_dir():
        raise MacError(f"{folder}: no such folder; {remedy}")
    found = Listing()
    _walk(folder, Path(), "", (), root or folder, found)
    found.files.sort()
    return found


def image_files(folder: Path, remedy: str) -> tuple[list[Path], list[str]]:
    """The images below a folder, as `listed` finds them: paths relative to it, sorted. And what is not used.

    Raises:
        MacError: as `listed`.
    """
    found = listed(folder, remedy)
    return found.files, not_used(found.unused)


def below(
    root: Path, folders: Sequence[str], remedy: str, depth: int = 0
) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]]:
    """The images below some folders of a release, each with its folder; and what is not used, as `Listing`.

    Args:
        depth: of the classes in these folders, see `Listing.require_inside`.

    Raises:
        MacError: as `listed`, or a link to a class leads out of the root.
    """
    files: list[tuple[str, Path]] = []
    unused: list[tuple[str, Path]] = []
    for folder in folders:
        listing = listed(root / folder, remedy, root)
        listing.require_inside(root / folder, depth)
        files += [(folder, file) for file in listing.files]
        unused += [(kind, Path(folder, path)) for kind, path in listing.unused]
    return files, unused


def not_used(unused: list[tuple[str, Path]]) -> list[str]:
    """What is not used, as one line: how many files, by kind and by folder. No line if all is used."""
    by_kind: dict[str, Counter[str]] = {}
    for kind, path in unused:
        by_kind.setdefault(kind, Counter())["/".join(path.parts[:-1][:2]) or "."] += 1
    said = []
    for kind, folders in sorted(by_kind.items(), key=lambda each: -each[1].total()):
        places = [f"{folder} {count}" for folder, count in folders.most_common()]
        said.append(f"{folders.total()} {kind} ({', '.join(shortened(places))})")
    return [f"not used: {'; '.join(shortened(said))}"] if said else []


def _walk(
    folder: Path, below: Path, aside: str, above: tuple[tuple[int, int], ...], root: Path, found: Listing
) -> None:
    """Add what is in root/.../`folder`, which is `below` in paths.

    Args:
        aside: the folder above, or this one, that holds no images of the dataset; empty if there is none.
        above: device and inode of the folders above.
    """
    entries = _entries(folder, bool(aside))
    status = folder.stat()
    above = (*above, (status.st_dev, status.st_ino))
    for entry in entries:
        path = below / entry.name
        without = aside or (entry.name if _is_left_behind(entry.name) else "")
        if _is(entry, directory=True):
            if entry.is_symlink():
                if without:
                    continue
                there = entry.stat()
                place = (there.st_dev, there.st_ino)
                if why := _why_not_entered(root, folder / entry.name, place in above, place in found.entered):
                    found.unused.append((why, path))
                    continue
                found.entered.add(place)
            if not without:
                found.folders.append(path)
            _walk(folder / entry.name, path, without, above, root, found)
        elif kind := _unused_kind(entry, aside):
            found.unused.append((kind, path))
        elif not without and path.suffix.lower() in SUFFIXES:
            found.files.append(path)


def _unused_kind(entry: "os.DirEntry[str]", aside: str) -> str:
    """Why an entry, which is no folder, is not used; empty if it is, or if it is not worth a word."""
    name, suffix = entry.name, Path(entry.name).suffix.lower()
    if name.casefold() in LEAVINGS or name.startswith("._"):
        return ""
    is_image = suffix in SUFFIXES
    if aside or name.startswith("."):
        place = f"in {aside}" if aside else "hidden"
        return f"{suffix} {place}" if is_image else ""
    if not _is(entry, directory=False):
        if entry.is_symlink():  # opening an image says what is wrong with it
            return "" if is_image else "broken link"
        return "no regular file"
    return "" if is_image else suffix if suffix.strip(".0123456789") else "without a suffix"


def _entries(folder: Path, aside: bool) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if aside:
            return []
        raise MacError(f"{folder}: cannot be listed ({first_line(error)}); make it readable") from None


def _is(entry: "os.DirEntry[str]", directory: bool) -> bool:
    try:
        return entry.is_dir() if directory else entry.is_file()
    except OSError:  # links that form a loop
        return False


def _is_left_behind(name: str) -> bool:
    return name.startswith(".") or name.casefold() in LEFT_BEHIND


def _why_not_entered(root: Path, link: Path, is_above: bool, is_entered: bool) -> str:
    """Why a link to a folder is not entered, in words; empty if it is."""
    if is_above:
        return "link to a folder above it"
    if not link.resolve().is_relative_to(root.resolve()):
        return LEADS_OUT
    return "link to a folder that another link leads to" if is_entered else ""
