"""What notebooks use: the classifiers, artefacts as arrays, and tables for pandas. All of it is there after `import pipeline`.

The examples are run as they stand, in a project whose pipeline has run.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import dask.array as da

from pipeline import store
from pipeline.metrics import Groups
from pipeline.tools.browse import as_rows, browse
from pipeline.tools.prediction import load_model

__all__ = ["images_table", "load_model", "masks_table", "open_features", "open_images", "open_masks"]


class Arrays(Mapping[str, da.Array]):
    """The datasets of an artefact, by name, as dask arrays: nothing is read before `compute()`.

    The file is open until `close()`, or the end of a `with` block.

    Attributes:
        params: the parameters that it was made with. made_from: the digests of what it was made from. digest: its own.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        self._opened = ExitStack()
        artefact = self._opened.enter_context(store.open_artefact(Path(path), kind))
        self.params, self.made_from, self.digest = artefact.provenance.params, artefact.provenance.made_from, artefact.digest
        self._attribute = artefact.attribute
        self._arrays: dict[str, da.Array] = {
            name: da.from_array(artefact[name], name=False) for name in store.SCHEMAS[kind] if name in artefact
        }

    def __getitem__(self, name: str) -> da.Array:
        array: da.Array = self._arrays[name]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, of images.h5 and features.h5."""
        return list(self._attribute("classes"))

    def close(self) -> None:
        """Close the file; the arrays cannot be read any more."""
        self._opened.close()

    def __enter__(self) -> "Arrays":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def open_images(path: str | Path) -> Arrays:
    """images.h5: `image` (N, H, W, 3) uint8, `label`, `attribute`, `split` (N,), `path`, and `foreground` (N, H, W) where it is known.

    >>> import pipeline
    >>> images = pipeline.open_images("data/images.h5")
    >>> training = images["split"].compute() == 0
    >>> pixels = images["image"][training][:4].compute()  # NumPy, of four images alone
    >>> pixels.dtype, pixels.shape[0], pixels.shape[3]
    (dtype('uint8'), 4, 3)
    >>> images.close()
    """
    return Arrays(path, "images")


def open_masks(path: str | Path) -> Arrays:
    """masks.h5: `mask` (M, S, S) bool, `cam` (M, h, w) float32, `row` and `target` (M,).

    >>> import pipeline
    >>> with pipeline.open_masks("data/masks.h5") as masks:
    ...     covered = masks["mask"].mean((1, 2)).compute()  # the share of K in every image
    ...     top_k = masks.params["top_k"]
    >>> bool(abs(covered - top_k).max() < 0.001)
    True
    """
    return Arrays(path, "masks")


def open_features(path: str | Path) -> Arrays:
    """features.h5: `train/original` (M, D), `train/masked` and `train/combined` (R, M, D), `val/original`, `test/original`, labels.

    >>> import pipeline
    >>> with pipeline.open_features("data/features.h5") as features:
    ...     moved = (features["train/combined"][0] - features["train/original"]).compute()
    ...     same = moved.shape == features["train/original"].shape
    >>> same
    True
    """
    return Arrays(path, "features")


def images_table(path: str | Path) -> list[dict[str, Any]]:
    """A row an image of images.h5, for `pandas.DataFrame`: row, path, split, class and group.

    >>> import pipeline
    >>> rows = pipeline.images_table("data/images.h5")
    >>> sorted(rows[0])
    ['class', 'group', 'path', 'row', 'split']
    """
    with store.open_artefact(Path(path), "images") as images:
        label, groups = images["label"][:], Groups.of(images)
        described = groups.described(label, images["attribute"][:])
        columns = (images["path"][:], images["split"][:], label, described.index)
        return [
            {"row": row, "path": name.decode(), "split": store.SPLITS[split], "class": groups.classes[c], "group": described.names[g]}
            for row, (name, split, c, g) in enumerate(zip(*columns, strict=True))
        ]


def masks_table(path: str | Path) -> list[dict[str, Any]]:
    """A row an image of masks.h5, for `pandas.DataFrame`: what `mac inspect --csv` writes, from the artefacts beside it.

    >>> import pipeline
    >>> unsure = min(pipeline.masks_table("data/masks.h5"), key=lambda row: row["confidence"])
    >>> 0 <= unsure["confidence"] <= 1
    True
    """
    return as_rows(browse(Path(path)))
