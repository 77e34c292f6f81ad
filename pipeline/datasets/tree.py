"""A tree of class folders: which folders are splits and which are classes, or what speaks against both.

<root>/<class>/**, or <root>/{train,val,test}/<class>/**

What could be read in another way as well is refused: folders with the names of splits among class folders,
splits inside of classes, a folder around all. No class is ever a split by mistake.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.datasets.listing import listed, not_used
from pipeline.datasets.names import distinct, is_missing, shortened
from pipeline.datasets.table import SPLIT_CODES
from pipeline.errors import MacError
from pipeline.store import SPLITS

NUMBERS = {"0", "1", "2"}  # splits in a table; in a tree, more often classes
FOLDERS = {name: code for name, code in SPLIT_CODES.items() if name not in NUMBERS}
TABLE = "in a table, dataset.options.metadata, a class may have such a name"
# A word that names a split, with what is often written behind it: testset, train2017.
_SPLIT_WORD = re.compile(
    r"[xy]?(?:(?P<train>train(ing)?)|(?P<val>val(id(ation)?)?|dev(elopment)?|eval(uation)?)"
    r"|(?P<test>test(ing)?|holdout)|(?P<fold>fold))"
)
# They are splits if all folders have names of splits, and classes, such as languages, if not.
_SHORT_WORD = re.compile(r"(?P<train>trn?)|(?P<test>te|tst?)")
_BEHIND = re.compile(r"(set|sets|data|dataset|images?|imgs?|pics|split|folder|dir|val)?\d*")
# Words beside it that say nothing about a class.
_GENERIC = re.compile(
    r"(data)?sets?|data|images?|imgs?|pics?|pictures?|photos?|jpe?g|png|splits?|folders?|dir(ectory)?|my|our|the"
    r"|new|old|all|full|final|clean|raw|orig(inal)?|aug(mented)?|(pre)?processed|resized|crop(ped|s)?|small|mini"
    r"|tiny|samples?|subset|part|batch|fold|cv|seg|public|private|(un)?labell?ed|class(es)?|inputs?"
)
# Folders of files, not of a class.
_OF_MASKS = re.compile(r"masks?|labels?|annotations?|segmentations?(class|object)?|ground[ _]?truth|gt")
_CONTAINERS = re.compile(
    r"images?|imgs?|pictures|photos|jpe?gs|jpegimages|(images|labels)(tr|ts|va)|query|probe|gallery"
    rf"|{_OF_MASKS.pattern}"
)


@dataclass(frozen=True)
class Tree:
    """What a tree says.

    Attributes:
        files: the images, relative to the root.
        labels: the class of each.
        splits: the split of each; None if they are to be drawn.
        notes: what was noticed, one line each.
    """

    files: list[Path]
    labels: list[str]
    classes: tuple[str, ...]
    splits: list[int] | None
    notes: list[str] = field(default_factory=list)


def read_tree(root: Path) -> Tree:
    """Find splits, classes and images.

    Raises:
        MacError: no such folder, no images in class folders, folders that could be splits as well as classes,
            or spellings of one class.
    """
    listing = listed(root, "dataset.root should be the folder of the images")
    inner = [file for file in listing.files if len(file.parts) > 1]
    tops = _folders(inner, 0)
    by_split = bool(tops) and all(name.casefold() in FOLDERS for name in tops)
    depth = 1 if by_split else 0
    listing.require_inside(root, depth + 1)
    if not by_split:
        _require_no_splits(root, inner, 0)
        _require_no_numbered_splits(root, inner)
    masks = _masks_beside_images(inner, depth)
    files = [file for file in inner if len(file.parts) > depth + 1 and file not in masks]
    if not files:
        _refuse_flat(root, listing.files, by_split)
    if by_split:
        _require_no_splits(root, files, 1)
        _require_splits(root, tops, files)
    _require_classes(root, files, depth)
    _require_no_inner_splits(root, files, depth)
    labels = [file.parts[depth] for file in files]
    classes = distinct(labels, "class folders", str(root))
    _require_names(root, labels)
    splits = [FOLDERS[file.parts[0].casefold()] for file in files] if by_split else None
    used = {*files, *masks}
    outer = [(f"{file.suffix} above the class folders", file) for file in listing.files if file not in used]
    beside = [(f"{file.suffix} of masks, beside images", file) for file in sorted(masks)]
    notes = not_used([*listing.unused, *outer, *beside])
    with_images = {file.parts[: depth + 1] for file in files}
    places = [folder for folder in listing.folders if len(folder.parts) == depth + 1]
    if by_split:
        places = [folder for folder in places if folder.parts[0] in tops]
    without = [folder.as_posix() for folder in places if folder.parts not in with_images]
    if without:
        notes.append(f"no images in the folders {_listed(without)}, so they are no classes")
    notes += _same_inside(files, depth)
    if splits is not None:
        notes += _require_one_set_of_classes(root, labels, splits)
    return Tree(files, labels, classes, splits, notes)


def _folders(files: Sequence[Path], depth: int) -> list[str]:
    """The names of the folders at this depth that hold images, sorted."""
    return sorted({file.parts[depth] for file in files if len(file.parts) > depth + 1})


def _masks_beside_images(files: Sequence[Path], depth: int) -> set[Path]:
    """The files of class folders that are in a folder such as `masks`, beside images or their folder."""
    with_images = set()
    for file in files:
        for level in range(depth + 1, len(file.parts)):
            if not _OF_MASKS.fullmatch(file.parts[level].casefold()):
                with_images.add(file.parts[:level])
    masks = set()
    for file in files:
        for level in range(depth + 1, len(file.parts) - 1):
            if file.parts[:level] in with_images and _OF_MASKS.fullmatch(file.parts[level].casefold()):
                masks.add(file)
    return masks


def _inner(files: Sequence[Path], depth: int) -> dict[str, set[str]]:
    """The folders in each folder at this depth."""
    inner: dict[str, set[str]] = {}
    for file in files:
        inner.setdefault(file.parts[depth], set()).update(file.parts[depth + 1 : -1][:1])
    return inner


def _words(name: str) -> list[str]:
    """The words of a name, in lower case: at other characters than letters and numbers, and at capitals."""
    text = unicodedata.normalize("NFKC", name)
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+\d*|[A-Z]+\d*|\d+|[^\W\d_]+", text)
    return [word.casefold() for word in words]


def split_in(name: str, with_short: bool = False) -> tuple[str, tuple[str, ...]] | None:
    """The split that a word of a folder's name speaks of, and the other words; None if none does.

    Args:
        with_short: `tr`, `te` and the like are such words too.
    """
    words = _words(name)
    for place, word in enumerate(words):
        found = (with_short and _SHORT_WORD.fullmatch(word)) or _SPLIT_WORD.match(word)
        if found and _BEHIND.fullmatch(word[found.end() :]):
            if found.lastgroup == "fold" and not re.search(r"\d", name):  # it may be a class
                continue
            return str(found.lastgroup), (*words[:place], *words[place + 1 :])
    return None


def split_like(files: Sequence[Path], depth: int) -> list[str]:
    """The folders at this depth that are more likely splits than classes.

    A folder is, if its name speaks of a split, and the other words of the name say nothing about a class
    (`train_images`, `my-test`), or are those of another split's folder (`xray_train`, `xray_test`), or the
    images in it lie in folders again. A class may be `bullet train` or `test tube`.
    """
    names = _folders(files, depth)
    speaking = {name: found for name in names if (found := split_in(name))}
    with_short = {name: found for name in names if (found := split_in(name, with_short=True))}
    if len(with_short) == len(names) and len({split for split, _ in with_short.values()}) > 1:
        speaking = with_short
    rests: dict[tuple[str, ...], set[str]] = {}
    for split, rest in speaking.values():
        rests.setdefault(rest, set()).add(split)
    likely = []
    for name, (_, rest) in speaking.items():
        below = [file for file in files if len(file.parts) > depth + 1 and file.parts[depth] == name]
        nested = min(len(file.parts) for file in below) > depth + 2 and len(_folders(below, depth + 1)) > 1
        if nested or len(rests[rest]) > 1 or all(_is_generic(word) for word in rest):
            likely.append(name)
    return likely


def _is_generic(word: str) -> bool:
    return bool(_GENERIC.fullmatch(word)) or len(word) == 1 or word.isdecimal() or bool(split_in(word))


def _require_no_splits(root: Path, files: Sequence[Path], depth: int) -> None:
    """Raise an error if class folders have names of splits; `depth` is 1 below folders of splits."""
    likely, names = split_like(files, depth), _folders(files, depth)
    if not likely:
        return
    others = [name for name in names if name not in likely]
    if depth:
        raise MacError(
            f"{root}: the folders {_listed(likely)} in {_listed(_folders(files, 0))} would be classes, but "
            "have names of splits; expected train/<class>/<image>: take out the folders in between, or give "
            f"the classes other names ({TABLE})"
        )
    if len(names) == 1:
        raise MacError(
            f"{root}: holds the one folder {names[0]}; let dataset.root be {root / names[0]}, of which all "
            "splits are drawn, or add the other splits and name them train, val and test"
        )
    if not others:
        raise MacError(
            f"{root}: all folders would be classes, but have names of splits ({_listed(likely)}); rename "
            f"them train, val and test if they are splits, else give the classes other names ({TABLE})"
        )
    raise MacError(
        f"{root}: some folders have names of splits ({_listed(likely)}), others not ({_listed(others)}); "
        "if they are splits, let dataset.root be a folder with only train, val and test; else give the "
        f"classes other names ({TABLE})"
    )


def _require_no_numbered_splits(root: Path, files: Sequence[Path]) -> None:
    """Raise an error if folders 0, 1 and 2 hold the same folders, so that they look like splits."""
    names = _folders(files, 0)
    if len(names) < 2 or not set(names) <= NUMBERS or any(len(file.parts) < 3 for file in files):
        return
    if len(set.intersection(*_inner(files, 0).values())) > 1:
        raise MacError(
            f"{root}: the folders {_listed(names)} hold the same folders, so they could be splits as well as "
            "classes; rename them train, val and test if they are splits, else give the classes other names"
        )


def _same_inside(files: Sequence[Path], depth: int) -> list[str]:
    """Say so if all classes hold the same folders: these could be the classes."""
    names = _folders(files, depth)
    if any(len(file.parts) < depth + 3 for file in files):
        return []
    inner = _inner(files, depth)
    common = set.intersection(*inner.values())
    if len(common) < 2 or any(folders != common for folders in inner.values()):
        return []
    return [f"the classes are {_listed(names)}; the folders in them ({_listed(sorted(common))}) are not"]


def _require_no_inner_splits(root: Path, files: Sequence[Path], depth: int) -> None:
    """Raise an error if a folder inside of a class folder is a split."""
    deepest = max(len(file.parts) for file in files) - 1
    for level in range(depth + 1, deepest):
        by_parent: dict[Path, list[Path]] = {}
        for file in files:
            if len(file.parts) > level + 1:
                by_parent.setdefault(Path(*file.parts[:level]), []).append(file)
        for parent, below in sorted(by_parent.items()):
            likely = split_like(below, level)
            splits = {found[0] for name in likely if (found := split_in(name, with_short=True))}
            if len(splits) > 1 or any(name.casefold() in FOLDERS for name in likely):
                raise MacError(
                    f"{root / parent}: holds folders with names of splits ({_listed(likely)}), but is in "
                    f"what would be class {parent.parts[depth]}; splits are above: train/<class>/<image>"
                )


def _require_splits(root: Path, tops: Sequence[str], files: Sequence[Path]) -> None:
    """Raise an error if a split has no folder, or two."""
    folders: dict[int, list[str]] = {}
    for name in tops:
        folders.setdefault(FOLDERS[name.casefold()], []).append(name)
    for code, names in folders.items():
        if len(names) > 1:
            raise MacError(f"{root}: the folders {_listed(names)} are all the split {SPLITS[code]}; keep one")
    there = {FOLDERS[file.parts[0].casefold()] for file in files}
    if missing := [name for code, name in enumerate(SPLITS) if code not in there]:
        whole = max(tops, key=lambda name: (FOLDERS[name.casefold()] == 0, name))
        raise MacError(
            f"{root}: has {_listed(tops)}, but no images in {_listed(missing)}; move a share of each "
            f"class to {missing[0]}/<class>/, or let dataset.root be {root / whole}, of which all splits "
            "are drawn"
        )


def _require_classes(root: Path, files: Sequence[Path], depth: int) -> None:
    """Raise an error if the folders that would be classes are a folder around them, or folders of files."""
    names = _folders(files, depth)
    if len(names) == 1:
        inner = [Path(*file.parts[depth:]) for file in files]
        common = Path(os.path.commonpath([file.parent for file in inner]))
        if len(_folders(inner, len(common.parts))) > 1:
            remedy = f"dataset.root should be {root / common}"
            if depth:
                remedy = f"move the folders in {common} one level up, in every split"
            raise MacError(f"{root}: holds the one folder {common}, which would be the only class; {remedy}")
    elif all(_CONTAINERS.fullmatch(name.casefold()) for name in names):
        raise MacError(
            f"{root}: the folders {_listed(names)} would be the classes, but have names of folders of files; "
            f"dataset.root should be the folder that holds the class folders ({TABLE})"
        )


def _require_names(root: Path, labels: Sequence[str]) -> None:
    """Raise an error if class folders are named by what stands for a missing value."""
    count = Counter(label for label in labels if is_missing(label))
    if count:
        names = [f"{name} ({number} images)" for name, number in sorted(count.items())]
        raise MacError(
            f"{root}: the folders {_listed(names)} say that the class is not known; take them out, or rename "
            "what is a class"
        )


def _require_one_set_of_classes(root: Path, labels: Sequence[str], splits: Sequence[int]) -> list[str]:
    """Raise an error if a class has no training images; say which has none in another split."""
    of_split: list[set[str]] = [set(), set(), set()]
    for label, split in zip(labels, splits, strict=True):
        of_split[split].add(label)
    notes = []
    for code, name in enumerate(SPLITS[1:], 1):
        if more := sorted(of_split[code] - of_split[0]):
            raise MacError(
                f"{root}: no training image is of class {', '.join(more)}, which {name} has; train has "
                f"{_listed(sorted(of_split[0]))}: name the folders of a class alike in all splits"
            )
        if fewer := sorted(of_split[0] - of_split[code]):
            notes.append(f"no {name} image is of class {_listed(fewer)}")
    return notes


def _refuse_flat(root: Path, files: Sequence[Path], by_split: bool) -> None:
    where = "train/<class>/<image>" if by_split else "<class>/<image>"
    found = f"{len(files)} images, but none in a class folder" if files else "no images below it"
    raise MacError(f"{root}: {found}; expected {where}, or a table in dataset.options.metadata")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(shortened(names))
