"""Stage prepare: decodes the dataset's images, scales them to one size, and writes images.h5."""

import json
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
from pipeline.compute.engine import Arrays, Block, Shards, blocks
from pipeline.compute.machine import usable_cores
from pipeline.compute.progress import log
from pipeline.datasets import read
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import stored_image, to_stored
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams, ToStored
from pipeline.project import Opened
from pipeline.schemas.images import SCHEMA

LISTED = 20  # most unreadable files that are logged one by one
BLOCK = 64  # images in a shard: 13 MB at 256 pixels


def prepare(_given: Opened, out: Path, params: DatasetParams, context: Context) -> None:
    """Read the dataset at `params.root` and write images.h5.

    All files that cannot be read are listed in prepare_errors.csv beside images.h5. Then the stage fails; if
    `params.on_error` is `skip`, it continues without them.

    Raises:
        MacError: bad metadata, an image that cannot be read, or a split or class without images.
    """
    dataset = read(params)
    if context.cluster:  # workers have other working directories
        dataset = replace(dataset, root=dataset.root.resolve())
    made = params.model_dump(exclude={"root", "on_error"})
    names = {"classes": dataset.groups.classes, "attributes": dataset.groups.attributes}
    depends = (params.model_dump(exclude={"on_error"}), _stamps(dataset))
    shards = Shards(context.scratch, "prepare", __name__, *depends)
    with shards, store.create(out, "images", SCHEMA, made, {}, **names) as artefact:
        merging = _Merging(artefact, dataset, params)
        cut = blocks(len(dataset.records), BLOCK)
        work = _Work(dataset, params, merging.foreground is not None)
        shards.map_blocks(work, cut, merging.merge, threads=usable_cores(), cluster=context.cluster)
        _report(dataset, merging.errors, out.with_name("prepare_errors.csv"), params.on_error)
        merging.finish()


def _stamps(dataset: Dataset) -> list[object]:
    """Values that change when a file of the dataset changes."""
    stamps: list[object] = []
    for record in dataset.records:
        for source in (record.image, record.foreground):
            stamps.append(source and (source.name, source.stamp(dataset.root)))
    return stamps


class _Merging:
    """Writes blocks of decoded images into images.h5. Files that could not be read leave no gaps."""

    def __init__(self, artefact: store.Writer, dataset: Dataset, params: DatasetParams) -> None:
        self._artefact, self._records = artefact, dataset.records
        shape = (len(dataset.records), params.stored_size, params.stored_size)
        self._has_foreground = np.array([record.foreground is not None for record in dataset.records])
        self._image = artefact.create("image", (*shape, 3))
        self.foreground = artefact.create("foreground", shape) if self._has_foreground.any() else None
        self.errors: list[str] = []  # one for each image; empty if it can be read
        self._stop = 0  # images written so far

    def merge(self, block: Block, arrays: Arrays) -> None:
        """Write the images of a block that could be read."""
        self.errors.extend(json.loads(arrays["errors"].tobytes()))
        readable = np.array([not error for error in self.errors[block.slice]])
        start, self._stop = self._stop, self._stop + int(readable.sum())
        keep = slice(None) if readable.all() else readable  # a view instead of a copy
        self._image[start : self._stop] = arrays["image"][keep]
        if self.foreground is not None:
            self.foreground[start : self._stop] = arrays["foreground"][keep]

    def finish(self) -> None:
        """Write all other datasets: labels, attributes, splits and paths."""
        readable = np.array([not error for error in self.errors])
        kept = [self._records[number] for number in np.flatnonzero(readable)]
        self._image.resize(len(kept), 0)
        self._artefact.write("label", np.array([record.label for record in kept], np.int64))
        self._artefact.write("attribute", np.array([record.attribute for record in kept], np.int64))
        self._artefact.write("split", np.array([record.split for record in kept], np.int8))
        self._artefact.write("path", [record.image.name for record in kept])
        if self.foreground is not None:
            self.foreground.resize(len(kept), 0)
            self._artefact.write("has_foreground", self._has_foreground[readable])


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
    image = np.zeros((len(records), side, side, 3), np.uint8)
    foreground = np.zeros((len(records), side, side), np.bool_)
    errors = [""] * len(records)
    for number, record in enumerate(records):
        try:
            image[number], mask = decode(record, dataset.root, side, params.to_stored)
            if mask is not None:
                foreground[number] = mask
        except MacError as error:
            errors[number] = str(error)
    listed = np.frombuffer(json.dumps(errors).encode(), np.uint8)
    arrays: dict[str, NDArray[Any]] = {"image": image, "errors": listed}
    return arrays | {"foreground": foreground} if with_foreground else arrays


def decode(
    record: Record, root: Path, side: int, how: ToStored
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A record's image as RGB, and its true mask if it has one, both at the stored size.

    Mask pixels above 127 are foreground. CUB's segmentations are grey: they show how far annotators agree. A
    1-bit file has the values 0 and 255 here.

    Args:
        how: `squash` scales both sides to `side`; `center_crop` first takes the largest square in the middle.

    Returns:
        (side, side, 3) uint8 and (side, side) bool, bilinear with antialiasing.

    Raises:
        MacError: a file cannot be read as an image, or the mask has another size than the image.
    """
    picture = record.image.load(root)
    image = stored_image(picture, side, how)
    if record.foreground is None:
        return image, None
    mask = record.foreground.load(root)
    if mask.size != picture.size:
        mask_size, size = (f"{width} x {height}" for width, height in (mask.size, picture.size))
        raise MacError(
            f"{root / record.foreground.name}: the mask is {mask_size} pixels and its image "
            f"{record.image.name} {size}; give it the size of the image"
        )
    return image, np.asarray(to_stored(mask.convert("L"), side, how)) > 127
