"""For notebooks, after `import pipeline`: classifiers, artefacts as arrays, and tables for pandas.

Each example runs as it is written here, in a project whose pipeline has run.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import dask.array as da
import h5py

from pipeline.store import SPLITS, Pictures
from pipeline.tools.browse import as_rows, browse
from pipeline.tools.model import load_model
from pipeline.tools.single import open_single

__all__ = [
    "images_table",
    "load_model",
    "masks_table",
    "open_features",
    "open_images",
    "open_maps",
    "open_masks",
    "open_originals",
]

DECODED = 16 << 20  # bytes of pixels that are decoded at a time, but for a single image


class Arrays(Mapping[str, da.Array]):
    """The datasets of an HDF5 artefact by name, as dask arrays: nothing is read before `compute()`.

    The file stays open until `close()`, or until the end of a `with` block.

    Args:
        path: the file.
        kind: the kind of artefact that it must be, such as `images`.

    Attributes:
        params: the parameters that it was made with.
        made_from: the digests of what it was made from, by name.
        digest: its own digest.

    Raises:
        MacError: it is missing, damaged, or of another kind.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        self._opened = ExitStack()
        _, given = self._opened.enter_context(open_single(Path(path), kind))
        artefact = given.file(kind)
        self.params = artefact.provenance.params
        self.made_from = artefact.provenance.made_from
        self.digest = artefact.digest
        self._names = artefact.names
        self._arrays = {name: _lazy(artefact[name]) for name in artefact}

    def __getitem__(self, name: str) -> da.Array:
        array: da.Array = self._arrays[name]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def classes(self) -> list[str]:
        """The names of the classes; images.h5 and features.h5 have them."""
        return list(self._names["classes"])

    def close(self) -> None:
        """Close the file. After this, the arrays cannot be read."""
        self._opened.close()

    def __enter__(self) -> "Arrays":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _lazy(dataset: h5py.Dataset) -> da.Array:
    chunks: Any = "auto"
    if isinstance(dataset, Pictures):  # a chunk is decoded at once
        row = math.prod(dataset.shape[1:])
        chunks = (max(1, DECODED // row), *dataset.shape[1:])
    array: da.Array = da.from_array(dataset, chunks, name=False)
    return array


def open_images(path: str | Path) -> Arrays:
    """images.h5: every image of the dataset.

    `image` is (N, H, W, 3) uint8; `label`, `attribute`, `split` and `path` are (N,). Where true masks are
    known, there are also `foreground` (N, H, W) and `has_foreground` (N,), bool.

    >>> import pipeline
    >>> images = pipeline.open_images("data/images.h5")
    >>> training = (images["split"] == 0).compute().nonzero()[0]
    >>> pixels = images["image"][training[:4]].compute()  # NumPy, of four images
    >>> pixels.dtype, pixels.shape[0], pixels.shape[3]
    (dtype('uint8'), 4, 3)
    >>> images.close()
    """
    return Arrays(path, "images")


def open_maps(path: str | Path) -> Arrays:
    """maps.h5: the map of every image of the retraining set.

    `cam` is (M, h, w) float32, and absent where the masks are given; `channel_mean` (M, 3) float32; `row` and
    `target` are (M,). Of the validation images, `val/cam` and so on.

    >>> import pipeline
    >>> with pipeline.open_maps("data/maps.h5") as maps:
    ...     speaks_for_the_class = (maps["cam"] > 0).any((1, 2)).compute()
    >>> speaks_for_the_class.dtype
    dtype('bool')
    """
    return Arrays(path, "maps")


def open_masks(path: str | Path) -> Arrays:
    """masks.h5: map and mask of every image of the retraining set.

    `mask` is (M, S, S) bool, `cam` (M, h, w) float32, `channel_mean` (M, 3) float32; `row` and `target` are
    (M,).

    >>> import pipeline
    >>> with pipeline.open_masks("data/masks.h5") as masks:
    ...     covered = masks["mask"].mean((1, 2)).compute()  # the share of K in every image
    ...     top_k = masks.params["top_k"]
    >>> bool(abs(covered - top_k).max() < 0.001)
    True
    """
    return Arrays(path, "masks")


def open_originals(path: str | Path) -> Arrays:
    """originals.h5: φ of the images as they are, and their labels.

    `train/original`, `val/original` and `test/original` are (n, D) float32. features.h5 has them too.

    >>> import pipeline
    >>> with pipeline.open_originals("data/originals.h5") as originals:
    ...     same = len(originals["test/row"]) == len(originals["test/original"])
    >>> same
    True
    """
    return Arrays(path, "originals")


def open_features(path: str | Path) -> Arrays:
    """features.h5: φ of the images, and their labels.

    `train/original`, `val/original` and `test/original` are (n, D) float32; `train/masked` and
    `train/combined` are (R, M, D). In draw r, these two have the views of the images `train/order[r]`: batch
    after batch, as retraining reads them.

    >>> import pipeline
    >>> with pipeline.open_features("data/features.h5") as features:
    ...     original = features["train/original"].compute()[features["train/order"][0].compute()]
    ...     moved = features["train/combined"][0].compute() - original
    ...     batch = features["train/batch"][0].compute()[features["train/order"][0].compute()]
    >>> moved.shape == original.shape, bool((batch[1:] >= batch[:-1]).all())
    (True, True)
    """
    return Arrays(path, "features")


def images_table(path: str | Path) -> list[dict[str, Any]]:
    """A dict for each image of images.h5, for `pandas.DataFrame`: row, path, split, class and group.

    >>> import pipeline
    >>> rows = pipeline.images_table("data/images.h5")
    >>> sorted(rows[0])
    ['class', 'group', 'path', 'row', 'split']
    """
    with open_single(Path(path), "images") as (_, given):
        images = given.file("images")
        label, split, file = images["label"][:], images["split"][:], images["path"][:]
        described = given.groups.described(label, images["attribute"][:])
        rows = []
        for row in range(len(label)):
            about = {"row": row, "path": file[row].decode(), "split": SPLITS[split[row]]}
            about["class"] = given.groups.classes[label[row]]
            about["group"] = described.names[described.index[row]]
            rows.append(about)
    return rows


def masks_table(path: str | Path) -> list[dict[str, Any]]:
    """A dict for each image of masks.h5, for `pandas.DataFrame`: what `mac inspect --csv` writes.

    images.h5, erm/, features.h5 and retrained/ must be in the same folder.

    >>> import pipeline
    >>> unsure = min(pipeline.masks_table("data/masks.h5"), key=lambda row: row["confidence"])
    >>> 0 <= unsure["confidence"] <= 1
    True
    """
    return as_rows(browse(Path(path)))
