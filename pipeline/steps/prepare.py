"""Stage prepare: decodes the dataset's images, scales them to one size, and writes images.h5."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Into, Scratch, blocks
from pipeline.compute.progress import log
from pipeline.datasets import read, true_masks
from pipeline.datasets.copies import Copies
from pipeline.datasets.depth import DARK, FULL, PEAK, TOLD
from pipeline.datasets.memory import holding_images
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import stored_image
from pipeline.errors import MacError
from pipeline.machine import usable_cores
from pipeline.params.dataset import DatasetParams
from pipeline.project import Opened
from pipeline.schemas.images import SCHEMA

LISTED = 20  # most unreadable files that are logged one by one
POLICIES = {"on_error", "on_duplicates"}  # keys that change no byte of images.h5
BLOCK = 64  # images: 13 MB at 256 pixels
COLUMNS = ("label", "attribute", "split", "path")


def prepare(_given: Opened, out: Path, params: DatasetParams, context: Context) -> None:
    """Read the dataset at `params.root` and write images.h5.

    All files that cannot be read are listed in prepare_errors.csv beside images.h5. Then the stage fails; if
    `params.on_error` is `skip`, it continues without them. Images with the same stored pixels are listed in
    prepare_duplicates.csv.

    Raises:
        MacError: bad metadata, an image that cannot be read, a split or class without images, or copies of an
            image (`Copies.judge`).
    """
    if params.storage == "encoded":
        store.require_webp()
    dataset = read(params)
    for note in dataset.notes:
        log.warning("%s: %s", dataset.root, note)
    if context.cluster:  # workers have other working directories
        dataset = replace(dataset, root=dataset.root.resolve())
    # What is noted only where it is something else.
    usual = {"range": "auto", "interpolation": "bilinear", "storage": "pixels"}
    unsaid = {key for key, value in usual.items() if getattr(params, key) == value}
    made = params.model_dump(exclude={"root", *POLICIES, *unsaid})
    names: dict[str, Any] = {"classes": dataset.groups.classes, "attributes": dataset.groups.attributes}
    depends = (params.model_dump(exclude=POLICIES), _stamps(dataset))
    scratch = Scratch(context.scratch, "prepare", __name__, *depends)
    opened = store.create(out, "images", SCHEMA, made, {}, scratch=scratch.folder, **names)
    with scratch, opened as artefact:
        writing = _Writing(artefact, dataset, params)
        work = _Work(dataset, params, writing.foreground is not None)
        cut, into = blocks(len(dataset.records), BLOCK), writing.into
        scratch.map_blocks(work, cut, writing.merge, into, threads=usable_cores(), cluster=context.cluster)
        copies, listed = writing.copies(), out.with_name("prepare_duplicates.csv")
        copies.write(listed)
        _report(dataset, writing.errors, out.with_name("prepare_errors.csv"), params.on_error)
        _tell(writing.told, np.concatenate(writing.peaks))
        if odd := writing.odd_masks():
            log.warning(odd)
        copies.judge(listed, params.on_duplicates)
        writing.finish(scratch.recorded("image/packed", cut))


def _stamps(dataset: Dataset) -> list[object]:
    """Values that change when a file of the dataset changes."""
    stamps: list[object] = []
    for record in dataset.records:
        for source in (record.image, record.foreground):
            stamps.append(source and (source.name, source.stamp(dataset.root)))
    return stamps


class _Writing:
    """Writes images.h5. Files that could not be read leave no gaps.

    With pixels and without true masks, all but the images is written before they are decoded. So the file's
    digest is computed meanwhile.
    """

    def __init__(self, artefact: store.Writer, dataset: Dataset, params: DatasetParams) -> None:
        self._artefact, self._dataset = artefact, dataset
        shape = (len(dataset.records), params.stored_size, params.stored_size)
        self._has_foreground = np.array([record.foreground is not None for record in dataset.records])
        self._image: store.Place | store.Sizes = store.Sizes()
        if params.storage == "pixels":
            self._image = artefact.place("image", (*shape, 3))
        self.foreground = artefact.chunks("foreground", shape) if self._has_foreground.any() else None
        self._settles = isinstance(self._image, store.Place) and self.foreground is None
        self.odd: list[str] = []  # what is odd about each true mask; empty if nothing is
        self.errors: list[str] = []  # one for each image; empty if it can be read
        self.told: Counter[str] = Counter()  # how images were read, and how many of them
        self.peaks: list[NDArray[np.float64]] = []  # see `Source.load`; NaN if there is none
        self._digests: list[NDArray[np.uint8]] = []
        if self._settles:
            self._write_columns(np.arange(len(dataset.records)))
            artefact.settle()

    @property
    def into(self) -> Into:
        """Where decoded images and true masks go."""
        image: Into = {"image": self._image}
        return image if self.foreground is None else {**image, "foreground": self.foreground}

    def merge(self, block: Block, arrays: Arrays) -> None:
        """Take up what is known of a block."""
        about = json.loads(arrays["about"].tobytes())
        self.errors.extend(about["errors"])
        self.told.update(about["told"])
        self.odd.extend(about["odd"])
        self.peaks.append(arrays["peak"])
        digest = arrays["image/digest"]
        if isinstance(self._image, store.Sizes):  # which has the images alone that can be read
            readable, found = [not error for error in about["errors"]], digest
            digest = np.zeros((len(block), found.shape[1]), np.uint8)
            digest[readable] = found
        elif self._settles and not any(self.errors):
            self._artefact.follow(self._image, block.stop)
        self._digests.append(digest)

    def odd_masks(self) -> str:
        """What is odd about true masks, in one line."""
        classes = self._dataset.groups.classes
        labels = [classes[record.label] for record in self._dataset.records]
        return true_masks.told(labels, self.odd) if self.foreground is not None else ""

    def copies(self) -> Copies:
        """The images with the same pixels."""
        return Copies(self._dataset, np.concatenate(self._digests), ~self._unreadable())

    def finish(self, packed: Iterator[NDArray[np.uint8]]) -> None:
        """Write what is not written yet, and leave out the images that cannot be read.

        Args:
            packed: the bytes of encoded images, block after block.
        """
        unreadable = self._unreadable()
        kept = np.flatnonzero(~unreadable)
        if self._settles and not unreadable.any():
            return
        if self._settles:
            self._artefact.take_up()
            for name in COLUMNS:
                del self._artefact.file[name]
        if isinstance(self._image, store.Place) and unreadable.any():
            self._artefact.keep_rows("image", self._image, kept)
        if self.foreground is not None:
            self.foreground.dataset.resize(len(kept), 0)
            self._artefact.write("has_foreground", self._has_foreground[kept])
        self._write_columns(kept)
        if isinstance(self._image, store.Sizes):
            self._artefact.write_pictures("image", self._image, packed)

    def _unreadable(self) -> NDArray[np.bool_]:
        return np.array([bool(error) for error in self.errors])

    def _write_columns(self, rows: NDArray[np.int64]) -> None:
        """Write labels, attributes, splits and paths of some rows."""
        kept = [self._dataset.records[row] for row in rows]
        self._artefact.write("label", np.array([record.label for record in kept], np.int64))
        self._artefact.write("attribute", np.array([record.attribute for record in kept], np.int64))
        self._artefact.write("split", np.array([record.split for record in kept], np.int8))
        self._artefact.write("path", [record.image.name for record in kept])


def _report(dataset: Dataset, errors: list[str], file: Path, on_error: str) -> None:
    """List the files that cannot be read. Then fail, or warn how many images of each group are lost."""
    bad = [number for number, error in enumerate(errors) if error]
    if not bad:
        file.unlink(missing_ok=True)
        return
    records = [dataset.records[number] for number in bad]
    rows = []
    for number, record in zip(bad, records, strict=True):
        rows.append({"row": number, "path": record.image.name, "error": errors[number]})
    store.write_csv(file, rows)
    for number in bad[:LISTED]:
        log.warning("row %d: %s", number, errors[number])
    count = f"{len(bad)} of {len(errors)} images cannot be read"
    if on_error == "fail":
        raise MacError(
            f"{errors[bad[0]]} ({count}, all listed in {file}; dataset.on_error: skip goes on without them)"
        )
    label = np.array([record.label for record in records])
    attribute = np.array([record.attribute for record in records])
    lost = dataset.groups.described(label, attribute)
    by_group = [f"{n} of {name}" for name, n in zip(lost.names, lost.count, strict=True) if n]
    log.warning("%s and are left out (%s); all are listed in %s", count, ", ".join(by_group), file)
    readable = [record for record, error in zip(dataset.records, errors, strict=True) if not error]
    replace(dataset, records=readable).check("readable image")


def _tell(told: Counter[str], peaks: NDArray[np.float64]) -> None:
    """Say how images were read, and warn if all those of 16 bits are nearly black."""
    for text, count in sorted(told.items()):
        log.warning("%d images: %s", count, text)
    peaks = peaks[~np.isnan(peaks)]
    if len(peaks) and peaks.max() < DARK * FULL:
        log.warning(
            "all %d images of 16 bits are nearly black: their highest value is %.0f of %d; if %d is white in "
            "them, set dataset.range to it; if they are right, set it to %d",
            len(peaks), peaks.max(), FULL, (1 << max(int(peaks.max()).bit_length(), 1)) - 1, FULL,
        )  # fmt: skip


@dataclass(frozen=True)
class _Work:
    """The work of decoding, as it is sent to workers."""

    dataset: Dataset
    params: DatasetParams
    with_foreground: bool

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        yield partial(_decode_block, self.dataset, self.params, self.with_foreground)


def _decode_block(dataset: Dataset, params: DatasetParams, with_foreground: bool, block: Block) -> Arrays:
    records, side = dataset.records[block.slice], params.stored_size
    image = np.empty((len(records), side, side, 3), np.uint8)
    foreground = np.zeros((len(records), side, side), np.bool_)
    doubtful = np.zeros(len(records), np.bool_)
    peak = np.full(len(records), np.nan)
    errors, told = [""] * len(records), list[str]()
    for number, record in enumerate(records):
        try:
            found = decode(record, dataset.root, params)
        except MacError as error:
            errors[number], image[number] = str(error), 0
            continue
        image[number], peak[number] = found.image, found.peak
        if found.foreground is not None:
            foreground[number] = found.foreground
            doubtful[number] = true_masks.is_doubtful(record.foreground, record.image, dataset.root)
        told.extend(found.told)
    about: dict[str, list[str]] = {"errors": errors, "told": told, "odd": []}
    readable = [not error for error in errors]
    arrays: dict[str, NDArray[Any]] = {"peak": peak}
    arrays["image"] = image[readable] if params.storage == "encoded" else image
    if with_foreground:
        known = [
            record.foreground is not None and not error for record, error in zip(records, errors, strict=True)
        ]
        odd = true_masks.oddities(foreground, doubtful)
        about["odd"] = [each if is_known else "" for each, is_known in zip(odd, known, strict=True)]
        arrays["foreground"] = foreground[readable]
    return arrays | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}


@dataclass(frozen=True)
class Decoded:
    """An image at the stored size.

    Attributes:
        image: (side, side, 3) uint8, RGB.
        foreground: (side, side) bool, the true mask; or None.
        told, peak: how the file was read, see `Source.load`; the peak is NaN if there is none.
    """

    image: NDArray[np.uint8]
    foreground: NDArray[np.bool_] | None
    told: list[str]
    peak: float


@holding_images()
def decode(record: Record, root: Path, params: DatasetParams) -> Decoded:
    """A record's image as RGB, and its true mask if it has one, both at the stored size.

    What is foreground in a mask, `true_masks` says.

    Raises:
        MacError: a file cannot be read as an image, or the mask has another size than the image.
    """
    side, how = params.stored_size, params.to_stored
    picture = record.image.load(root, params.range)
    image = stored_image(picture, side, how, params.interpolation)
    found = Decoded(image, None, picture.info.get(TOLD, []), picture.info.get(PEAK, np.nan))
    if record.foreground is None:
        return found
    mask = true_masks.load(record.foreground, record.image, picture.size, root)
    foreground = true_masks.stored(mask, side, how)
    return replace(found, foreground=foreground, told=[*found.told, *mask.info.get(TOLD, [])])
