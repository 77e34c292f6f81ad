"""Stage prepare: the dataset's images, decoded and brought to one size, into images.h5."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import store
from pipeline.compute.engine import Arrays, Block, Cluster, Shards, blocks
from pipeline.compute.machine import usable_cores
from pipeline.compute.progress import log
from pipeline.datasets import read
from pipeline.datasets.record import Dataset, Record
from pipeline.datasets.sources import stored_image, to_stored
from pipeline.errors import MacError
from pipeline.network.inputs import to_input_grid
from pipeline.params import DatasetParams, ToStored

LISTED = 20  # unreadable files that are told one by one
BLOCK = 64  # rows a shard: at 256 px, 13 MB


def prepare(params: DatasetParams, images: Path, scratch: Path, cluster: Cluster | None = None) -> None:
    """Read `params.root` and write images.h5 to `images`.

    Files that cannot be read are all found, and listed in prepare_errors.csv beside it; then it fails, or goes on without
    them where `params.on_error` is `skip`. `cluster` does the work in place of this process.

    Raises:
        MacError: bad metadata, an image that cannot be read, or a split or class left without images.
    """
    if params.to_input == "center_crop" and params.input_size > params.stored_size:
        raise MacError(
            f"dataset.input_size: a centre crop of {params.input_size} does not fit in stored_size {params.stored_size}; "
            "lower it, or set dataset.to_input to resize"
        )
    dataset = read(params)
    records = dataset.records
    stored = params.stored_size
    sources = [source and (source.name, source.stamp(dataset.root)) for record in records for source in (record.image, record.foreground)]
    has_foreground = np.array([record.foreground is not None for record in records])
    made = params.model_dump(exclude={"root", "on_error"})
    names = {"classes": dataset.groups.classes, "attributes": dataset.groups.attributes}
    fingerprint = (params.model_dump(exclude={"on_error"}), sources)
    # A worker has a working directory of its own.
    work = _Work(replace(dataset, root=dataset.root.resolve()) if cluster else dataset, params, bool(has_foreground.any()))
    errors: list[str] = []
    stop = 0  # of the rows that are merged: those that can be read, without a gap
    with Shards(scratch, "prepare", *fingerprint) as shards, store.create(images, "images", made, {}, **names) as artefact:
        image = artefact.create("image", (len(records), stored, stored, 3))
        foreground = artefact.create("foreground", (len(records), stored, stored)) if has_foreground.any() else None
        channel_mean = np.empty((len(records), 3), np.float32)

        def merge(block: Block, arrays: Arrays) -> None:
            nonlocal stop
            errors.extend(json.loads(arrays["errors"].tobytes()))
            kept = np.array([not error for error in errors[block.slice]])
            start, stop = stop, stop + int(kept.sum())
            keep = slice(None) if kept.all() else kept  # a view in place of a copy
            image[start:stop] = arrays["image"][keep]
            channel_mean[start:stop] = arrays["channel_mean"][keep]
            if foreground is not None:
                foreground[start:stop] = arrays["foreground"][keep]

        shards.map_blocks(work, blocks(len(records), BLOCK), merge, threads=usable_cores(), cluster=cluster)
        _report(dataset, errors, images.with_name("prepare_errors.csv"), params.on_error)
        kept = np.array([not error for error in errors])
        records = [record for record, keep in zip(records, kept, strict=True) if keep]
        image.resize(len(records), 0)
        artefact.write("channel_mean", channel_mean[: len(records)])
        artefact.write("label", np.array([record.label for record in records], np.int64))
        artefact.write("attribute", np.array([record.attribute for record in records], np.int64))
        artefact.write("split", np.array([record.split for record in records], np.int8))
        artefact.write("path", [record.image.name for record in records])
        if foreground is not None:
            foreground.resize(len(records), 0)
            artefact.write("has_foreground", has_foreground[kept])


def _report(dataset: Dataset, errors: list[str], file: Path, on_error: str) -> None:
    """List the files that cannot be read; fail, or say what is lost without them."""
    bad = [(number, error) for number, error in enumerate(errors) if error]
    if not bad:
        file.unlink(missing_ok=True)
        return
    records, groups = dataset.records, dataset.groups
    store.write_csv(file, [{"row": number, "path": records[number].image.name, "error": error} for number, error in bad])
    for number, error in bad[:LISTED]:
        log.warning("row %d: %s", number, error)
    if on_error == "fail":
        raise MacError(
            f"{bad[0][1]} ({len(bad)} of {len(errors)} images cannot be read, all listed in {file}; "
            "dataset.on_error: skip goes on without them)"
        )
    label, attribute = (np.array([getattr(records[number], name) for number, _ in bad]) for name in ("label", "attribute"))
    lost = groups.described(label, attribute)
    by_group = ", ".join(f"{n} of {name}" for name, n in zip(lost.names, lost.count, strict=True) if n)
    log.warning("%d of %d images cannot be read and are left out (%s); all are listed in %s", len(bad), len(errors), by_group, file)
    left = replace(dataset, records=[record for record, error in zip(records, errors, strict=True) if not error])
    left.check("readable image")


@dataclass(frozen=True)
class _Work:
    dataset: Dataset
    params: DatasetParams
    with_foreground: bool

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        yield partial(_decode_block, self.dataset, self.params, self.with_foreground)


def _decode_block(dataset: Dataset, params: DatasetParams, with_foreground: bool, block: Block) -> Arrays:
    records = dataset.records[block.slice]
    side = params.stored_size
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
    grid = to_input_grid(torch.from_numpy(image), params.input_size, params.to_input).permute(0, 2, 3, 1).numpy()
    # Sums of bytes are exact, so the mean does not depend on how the rows were cut into blocks. A column first: 32 bits hold that.
    total = np.stack([each.sum(0, dtype=np.uint32).sum(0, dtype=np.uint64) for each in grid])
    mean = (total / (255 * params.input_size**2)).astype(np.float32)
    arrays: dict[str, NDArray[Any]] = {"image": image, "channel_mean": mean, "errors": np.frombuffer(json.dumps(errors).encode(), np.uint8)}
    return arrays | {"foreground": foreground} if with_foreground else arrays


def decode(record: Record, root: Path, side: int, how: ToStored) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A record's image as RGB, and its true mask where it has one, both at the stored size.

    Mask pixels brighter than the middle are foreground: CUB's
    segmentations are grey, from annotators' agreement, and 1-bit files are 0 and 255 here.

    Args:
        how: `squash` scales both sides to `side`; `center_crop` takes the largest square in the middle first.

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
        (width, height), (mask_width, mask_height) = picture.size, mask.size
        raise MacError(
            f"{root / record.foreground.name}: the mask is {mask_width} x {mask_height} pixels and its image {record.image.name} "
            f"{width} x {height}; give it the size of the image"
        )
    return image, np.asarray(to_stored(mask.convert("L"), side, how)) > 127
