"""A page with the pairs of images that look the same, or nearly so (`mac doctor`)."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray
from PIL import Image

from pipeline import params_file
from pipeline.compute.progress import Progress
from pipeline.datasets import read
from pipeline.datasets.memory import holding_images
from pipeline.datasets.record import Dataset, Record
from pipeline.errors import MacError
from pipeline.machine import usable_cores
from pipeline.params.dataset import DatasetParams
from pipeline.setting import Range
from pipeline.store import SPLITS
from pipeline.store.files import write_text

LIMIT = 8  # largest distance of a pair, of 64 bits
SHOWN = 200  # most pairs with pictures
BLOCK = 512  # images that are compared with all others at once
HASHED, SIDE = 64, 220  # sides of an image to be hashed and to be shown, pixels


@dataclass(frozen=True)
class Near:
    """Pairs of images with a small distance.

    Attributes:
        pairs: (n, 3) int64, two row numbers (the smaller one first) and their distance; the nearest first,
            and of equal distances those in two splits first.
        count, across, differ: (LIMIT + 1,) int64, by distance: how many pairs there are in all, how many of
            them are in two splits, and how many have different classes.
    """

    pairs: NDArray[np.int64]
    count: NDArray[np.int64]
    across: NDArray[np.int64]
    differ: NDArray[np.int64]


def report(params_path: Path, out: Path) -> str:
    """Write the page for the dataset of params.yaml.

    Returns:
        What was found, in a line.

    Raises:
        MacError: the parameters or the dataset cannot be read, or imagehash is not installed.
    """
    params = params_file.load(params_path).of(DatasetParams)
    dataset = read(params)
    hashes, readable = hash_images(dataset, params.range)
    kept = [dataset.records[row] for row in np.flatnonzero(readable)]
    split, label = np.array([each.split for each in kept]), np.array([each.label for each in kept])
    near = find(hashes[readable], split, label)
    total, across = int(near.count.sum()), int(near.across.sum())
    values = {
        "root": str(dataset.root),
        "images": len(kept),
        "unreadable": len(dataset.records) - len(kept),
        "limit": LIMIT,
        "total": total,
        "across": across,
        "differ": int(near.differ.sum()),
        "table": list(zip(range(LIMIT + 1), near.count, near.across, near.differ, strict=True)),
        "pairs": [_pair(dataset, kept, params.range, *row) for row in near.pairs.tolist()],
    }
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(page)
    write_text(out, template.render(values))
    return f"pairs that look alike among {len(kept)} images: {total}, in two splits: {across}; see {out}"


def hash_images(dataset: Dataset, white: Range) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The perceptual hash of every image (imagehash's pHash), (N, 64) bool; and which can be read, (N,).

    Raises:
        MacError: imagehash is not installed.
    """
    try:
        from imagehash import phash
    except ImportError:
        raise MacError("near-duplicates need imagehash: pip install 'mac-robust[duplicates]'") from None

    def hashed(record: Record) -> NDArray[np.bool_] | None:
        try:
            small = _small(record, dataset.root, white, HASHED)
        except MacError:
            return None
        return np.asarray(phash(small).hash).ravel()

    hashes = np.zeros((len(dataset.records), 64), np.bool_)
    readable = np.zeros(len(hashes), np.bool_)
    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        Progress("near-duplicates", len(hashes), "images") as progress,
    ):
        for row, found in enumerate(pool.map(hashed, dataset.records)):
            if found is not None:
                hashes[row], readable[row] = found, True
            progress.update(1)
    return hashes, readable


def find(hashes: NDArray[np.bool_], split: NDArray[np.int64], label: NDArray[np.int64]) -> Near:
    """All pairs with a distance of at most LIMIT are counted; the nearest SHOWN are kept.

    With bits as ±1, the distance of two hashes is (64 − their product) / 2. So a block of images is compared
    with all images by one product of matrices.

    Args:
        hashes: (N, 64) bool.
        split, label: (N,).
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    counts = np.zeros((3, LIMIT + 1), np.int64)
    nearest = np.zeros((0, 4), np.int64)  # two rows, their distance, whether they are in one split
    for start in range(0, len(signs), BLOCK):
        product = signs[start : start + BLOCK] @ signs[start:].T
        one, other = np.nonzero(np.triu(product >= 64 - 2 * LIMIT, 1))
        far = ((64 - product[one, other]) / 2).astype(np.uint8)
        one += start
        other += start
        across, differ = split[one] != split[other], label[one] != label[other]
        for row, chosen in enumerate((slice(None), across, differ)):
            counts[row] += np.bincount(far[chosen], minlength=LIMIT + 1)
        first = np.argsort(2 * far + ~across, kind="stable")[:SHOWN]  # before all of them take much memory
        some = np.stack([each[first] for each in (one, other, far, ~across)], 1)
        found = np.concatenate([nearest, some])
        order = np.argsort(2 * found[:, 2] + found[:, 3], kind="stable")
        nearest = found[order[:SHOWN]]  # of equal ones the first rows, as they are found in this order
    return Near(nearest[:, :3], *counts)


@holding_images()
def _small(record: Record, root: Path, white: Range, side: int) -> Image.Image:
    """A record's image as RGB, at most `side` pixels wide and high."""
    picture = record.image.load(root, white).convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    return picture


def _pair(
    dataset: Dataset, records: Sequence[Record], white: Range, one: int, other: int, distance: int
) -> dict[str, Any]:
    """The values of a pair for the page."""
    images = []
    for record in (records[one], records[other]):
        buffer = io.BytesIO()
        _small(record, dataset.root, white, SIDE).save(buffer, "JPEG", quality=82)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        label, split = dataset.groups.classes[record.label], SPLITS[record.split]
        images.append({"name": record.image.name, "uri": uri, "label": label, "split": split})
    first, second = images
    return {
        "distance": distance,
        "across": first["split"] != second["split"],
        "differ": first["label"] != second["label"],
        "images": images,
    }
