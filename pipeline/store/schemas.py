"""What is in each HDF5 artefact."""

from dataclasses import dataclass

SPLITS = ("train", "val", "test")  # in the order of the codes 0, 1, 2


@dataclass(frozen=True)
class Field:
    """A dataset of an HDF5 artefact.

    Attributes:
        dtype: NumPy dtype, or `utf-8` for strings.
        dims: names of the axes; within one file axes of one name have one length. A number is an axis of that length.
        about: one line for the reader.
        layout: `contiguous`; `rows`, one chunk per row; `gzip`, the same compressed.
        optional: may be absent.
    """

    dtype: str
    dims: tuple[str | int, ...]
    about: str
    layout: str = "contiguous"
    optional: bool = False


def _split_fields(split: str) -> dict[str, Field]:
    return {
        f"{split}/original": Field("float32", (f"{split} row", "feature"), "φ(x) of the original images"),
        f"{split}/label": Field("int64", (f"{split} row",), "class"),
        f"{split}/attribute": Field("int64", (f"{split} row",), "spurious attribute; -1 unknown"),
        f"{split}/row": Field("int64", (f"{split} row",), "row in images.h5"),
    }


SCHEMAS: dict[str, dict[str, Field]] = {
    "images": {
        "image": Field("uint8", ("row", "height", "width", 3), "RGB at the stored size", "rows"),
        "label": Field("int64", ("row",), "class, index into the attribute `classes`"),
        "attribute": Field("int64", ("row",), "spurious attribute, index into the attribute `attributes`; -1 unknown"),
        "split": Field("int8", ("row",), "0 train, 1 val, 2 test"),
        "path": Field("utf-8", ("row",), "file, relative to the dataset's folder"),
        "channel_mean": Field("float32", ("row", 3), "mean colour over the input grid, in [0, 1]"),
        "foreground": Field("bool", ("row", "height", "width"), "true mask at the stored size", "gzip", optional=True),
        "has_foreground": Field("bool", ("row",), "whether `foreground` is known for the row", optional=True),
    },
    "masks": {
        "row": Field("int64", ("sample",), "row in images.h5"),
        "target": Field("int64", ("sample",), "class that the map explains"),
        "mask": Field("bool", ("sample", "height", "width"), "core pixels on the input grid", "gzip"),
        "cam": Field("float32", ("sample", "map height", "map width"), "raw map, neither rectified nor upsampled"),
    },
    "features": {
        **_split_fields("train"),
        "train/masked": Field("float32", ("draw", "train row", "feature"), "φ of equation 1"),
        "train/combined": Field("float32", ("draw", "train row", "feature"), "φ of equation 2"),
        "train/partner": Field("int32", ("draw", "train row"), "partner j, position in train/"),
        "train/batch": Field("int32", ("draw", "train row"), "batch of the draw that the row is in"),
        "train/fill": Field("float32", ("draw", "train row", 3), "fill b, in [0, 1]"),
        **_split_fields("val"),
        **_split_fields("test"),
    },
    "examples": {
        "train/sample": Field("int64", ("example",), "training image, position in masks.h5"),
        "train/picture": Field(
            "uint8", ("example", "picture", "height", "width", 3), "original, map, mask, masked and combined of draw 0, as pictures"
        ),
        "test/sample": Field("int64", ("mistake",), "test image that ERM gets wrong, position in test/ of features.h5"),
        "test/image": Field("uint8", ("mistake", "height", "width", 3), "its pixels on the input grid"),
        "test/map": Field(
            "float32", ("mistake", "feature", "map height", "map width"), "what each feature adds to the map of a head that weighs it 1"
        ),
    },
}
