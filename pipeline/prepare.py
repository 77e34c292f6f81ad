"""Stage prepare: the dataset's image files, decoded and squashed to one size, into images.h5."""

import json
import os
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline import store
from pipeline.datasets import READERS
from pipeline.datasets.record import Dataset
from pipeline.engine import Arrays, Block, Shards, blocks
from pipeline.errors import MacError
from pipeline.inputs import to_input_grid
from pipeline.params import DatasetParams
from pipeline.progress import log

LISTED = 20  # unreadable files that are told one by one
BLOCK = 256  # rows a shard: at 256 px, 50 MB


def prepare(params: DatasetParams, images: Path, scratch: Path) -> None:
    """Read `params.root` and write images.h5 to `images`.

    Files that cannot be read are all found, and listed in prepare_errors.csv beside it; then it fails, or goes on without
    them where `params.on_error` is `skip`.

    Raises:
        MacError: bad metadata, an image that cannot be read, or a split or class left without images.
    """
    if params.to_input == "center_crop" and params.input_size > params.stored_size:
        raise MacError(
            f"dataset.input_size: a centre crop of {params.input_size} does not fit in stored_size {params.stored_size}; "
            "lower it, or set dataset.to_input to resize"
        )
    dataset = READERS[params.name](Path(params.root), params.reader_options)
    records = dataset.records
    stored = params.stored_size
    stamp = [_stamp(dataset.root / file) for record in records for file in (record.path, record.foreground) if file]
    shards = Shards(scratch, "prepare", params.model_dump(exclude={"on_error"}), [vars(record) for record in records], stamp)
    has_foreground = np.array([record.foreground is not None for record in records])
    made = params.model_dump(exclude={"root", "on_error"})
    names = {"classes": dataset.groups.classes, "attributes": dataset.groups.attributes}
    decode = partial(_decode_block, dataset, params, bool(has_foreground.any()))
    decoded = shards.map_blocks(decode, blocks(len(records), BLOCK), workers=os.cpu_count() or 1)
    errors = [error for block in decoded.each("errors") for error in json.loads(block.tobytes())]
    _report(dataset, errors, images.with_name("prepare_errors.csv"), params.on_error)
    kept = np.array([not error for error in errors])
    records, has_foreground = [record for record, keep in zip(records, kept, strict=True) if keep], has_foreground[kept]
    with store.create(images, "images", made, {}, **names) as artefact:
        artefact.write("label", np.array([record.label for record in records], np.int64))
        artefact.write("attribute", np.array([record.attribute for record in records], np.int64))
        artefact.write("split", np.array([record.split for record in records], np.int8))
        artefact.write("path", [record.path for record in records])
        image = artefact.create("image", (len(records), stored, stored, 3))
        channel_mean = np.empty((len(records), 3), np.float32)
        foreground = None
        if has_foreground.any():
            artefact.write("has_foreground", has_foreground)
            foreground = artefact.create("foreground", (len(records), stored, stored))
        stop = 0
        for block, arrays in decoded:
            keep = kept[block.slice]
            start, stop = stop, stop + int(keep.sum())
            image[start:stop] = arrays["image"][keep]
            channel_mean[start:stop] = arrays["channel_mean"][keep]
            if foreground is not None:
                foreground[start:stop] = arrays["foreground"][keep]
        artefact.write("channel_mean", channel_mean)
    shards.remove()


def _stamp(file: Path) -> tuple[int, int]:
    """What changes when a file does: a shard of other files is not taken up again."""
    try:
        status = file.stat()
    except OSError:
        return -1, -1  # decoding says what is wrong with it
    return status.st_size, status.st_mtime_ns


def _report(dataset: Dataset, errors: list[str], file: Path, on_error: str) -> None:
    """List the files that cannot be read; fail, or say what is lost without them."""
    bad = [(number, error) for number, error in enumerate(errors) if error]
    if not bad:
        file.unlink(missing_ok=True)
        return
    records, groups = dataset.records, dataset.groups
    store.write_csv(file, [{"row": number, "path": records[number].path, "error": error} for number, error in bad])
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
    for name in left.empty_splits():
        raise MacError(f"{dataset.root}: no image of the split {name} can be read; all errors are listed in {file}")
    if untrained := left.untrained_classes():
        names = ", ".join(untrained)
        raise MacError(f"{dataset.root}: no training image of class {names} can be read; all errors are listed in {file}")


def _decode_block(dataset: Dataset, params: DatasetParams, with_foreground: bool, block: Block) -> Arrays:
    records = dataset.records[block.slice]
    side = params.stored_size
    image = np.zeros((len(records), side, side, 3), np.uint8)
    foreground = np.zeros((len(records), side, side), np.bool_)
    errors = [""] * len(records)
    for number, record in enumerate(records):
        try:
            image[number] = decode_image(dataset.root / record.path, side)
            if record.foreground:
                foreground[number] = decode_foreground(dataset.root / record.foreground, side)
        except MacError as error:
            errors[number] = str(error)
    grid = to_input_grid(torch.from_numpy(image), params.input_size, params.to_input)
    # Sums of bytes are exact, so the mean does not depend on how the rows were cut into blocks.
    total = grid.sum((2, 3), dtype=torch.int64).double() / (255 * params.input_size**2)
    arrays = {"image": image, "channel_mean": total.float().numpy(), "errors": np.frombuffer(json.dumps(errors).encode(), np.uint8)}
    return arrays | {"foreground": foreground} if with_foreground else arrays


def decode_image(file: Path, side: int) -> NDArray[np.uint8]:
    """An image file as RGB, squashed to (side, side, 3) uint8 (bilinear, antialiased).

    Turned as its EXIF orientation says; of an animation the first frame; of 16-bit grey the upper byte's range; transparency
    is dropped, as torchvision's ImageFolder does.

    Raises:
        MacError: the file cannot be read as an image.
    """
    with _opened(file) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def decode_foreground(file: Path, side: int) -> NDArray[np.bool_]:
    """A mask file, brighter than the middle being foreground, as (side, side) bool.

    CUB's segmentations are grey, from annotators' agreement; 1-bit files are 0 and 255 here.
    """
    with _opened(file) as image:
        return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BILINEAR)) > 127


def _opened(file: Path) -> Image.Image:
    """The file decoded, upright, in a mode of 8 bits."""
    try:
        with Image.open(file) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise ValueError("it holds floating-point values, whose range is not known")
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError) as error:
        raise MacError(
            f"{file}: cannot be read as an image ({' '.join(str(error).split())}); replace it, or take its row out of the metadata"
        ) from None
    return image
