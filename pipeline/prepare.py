"""Stage prepare: the dataset's image files, decoded and squashed to one size, into images.h5."""

import os
import struct
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

BLOCK = 256  # rows a shard: at 256 px, 50 MB


def prepare(params: DatasetParams, images: Path, scratch: Path) -> None:
    """Read `params.root` and write images.h5 to `images`.

    Raises:
        MacError: bad metadata, or an image that cannot be read.
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
    shards = Shards(scratch, "prepare", params.model_dump(), [vars(record) for record in records], stamp)
    has_foreground = np.array([record.foreground is not None for record in records])
    made = {key: value for key, value in params.model_dump().items() if key != "root"}
    names = {"classes": dataset.groups.classes, "attributes": dataset.groups.attributes}
    decode = partial(_decode_block, dataset, params, bool(has_foreground.any()))
    decoded = shards.map_blocks(decode, blocks(len(records), BLOCK), workers=os.cpu_count() or 1)
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
        for block, arrays in decoded:
            image[block.slice] = arrays["image"]
            channel_mean[block.slice] = arrays["channel_mean"]
            if foreground is not None:
                foreground[block.slice] = arrays["foreground"]
        artefact.write("channel_mean", channel_mean)
    shards.remove()


def _stamp(file: Path) -> tuple[int, int]:
    """What changes when a file does: a shard of other files is not taken up again."""
    try:
        status = file.stat()
    except OSError as error:
        raise MacError(f"{file}: cannot be read ({error.strerror})") from None
    return status.st_size, status.st_mtime_ns


def _decode_block(dataset: Dataset, params: DatasetParams, with_foreground: bool, block: Block) -> Arrays:
    records = dataset.records[block.slice]
    side = params.stored_size
    image = np.stack([decode_image(dataset.root / record.path, side) for record in records])
    grid = to_input_grid(torch.from_numpy(image), params.input_size, params.to_input)
    # Sums of bytes are exact, so the mean does not depend on how the rows were cut into blocks.
    total = grid.sum((2, 3), dtype=torch.int64).double() / (255 * params.input_size**2)
    arrays = {"image": image, "channel_mean": total.float().numpy()}
    if with_foreground:
        arrays["foreground"] = np.stack(
            [
                decode_foreground(dataset.root / record.foreground, side) if record.foreground else np.zeros((side, side), np.bool_)
                for record in records
            ]
        )
    return arrays


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
