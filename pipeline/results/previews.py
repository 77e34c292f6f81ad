"""Pictures of cores inside masks.h5, for HDF viewers."""

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.network.inputs import InputSpec, to_input_grid
from pipeline.results import visual
from pipeline.store import Artefact

# The attributes that mark a dataset as a picture (HDF5 Image and Palette Specification 1.2).
_PICTURE = {
    "CLASS": "IMAGE",
    "IMAGE_VERSION": "1.2",
    "IMAGE_SUBCLASS": "IMAGE_TRUECOLOR",
    "INTERLACE_MODE": "INTERLACE_PIXEL",
}


_ABOUT = "the core in colour, the rest dimmed; each dataset is a picture of one row of images.h5"


def write_previews(file: h5py.File, images: Artefact, spec: InputSpec, count: int) -> None:
    """Write the group `preview` into masks.h5: pictures, evenly spread over the retraining set.

    Each is (S, S, 3) uint8, with the core in colour and the rest dimmed. Its row is in its name.

    Args:
        file: masks.h5, open for writing, with `row` and `mask` in it.
        images: images.h5.
        spec: the input grid of the masks.
        count: how many pictures; fewer where there are fewer images.
    """
    group = file.create_group("preview")
    group.attrs["about"] = _ABOUT
    rows: NDArray[np.int64] = file["row"][:]
    for position in np.unique(np.linspace(0, len(rows) - 1, count).astype(int)):
        row = rows[position : position + 1]
        pixels = to_input_grid(torch.from_numpy(images.rows("image", row)), spec)[0]
        picture = visual.overlay(pixels.permute(1, 2, 0).numpy(), file["mask"][position])
        _write_picture(group, f"row_{row[0]:07d}", picture)


def _write_picture(group: h5py.Group, name: str, picture: visual.RGB) -> None:
    dataset = group.create_dataset(name, data=picture)
    for axis, dim in enumerate(("height", "width", "channel")):
        dataset.dims[axis].label = dim
    for attribute, value in _PICTURE.items():
        dataset.attrs[attribute] = np.bytes_(value)
