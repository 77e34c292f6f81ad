"""How the contents of an HDF5 artefact are declared."""

from collections.abc import Mapping
from dataclasses import dataclass

SPLITS = ("train", "val", "test")  # in the order of the codes 0, 1, 2


@dataclass(frozen=True)
class Field:
    """A dataset of an HDF5 artefact.

    Attributes:
        dtype: NumPy dtype, or `utf-8` for strings.
        dims: names of the axes. In a file, axes with the same name have the same length. A number is a fixed
            length.
        about: what it holds, in one line.
        layout: `contiguous`; `rows`: one chunk for each row; `gzip`: the same, compressed.
        optional: whether it may be absent.
    """

    dtype: str
    dims: tuple[str | int, ...]
    about: str
    layout: str = "contiguous"
    optional: bool = False


Schema = Mapping[str, Field]
