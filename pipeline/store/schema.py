"""How the contents of an HDF5 artefact are declared."""

from collections.abc import Mapping
from dataclasses import dataclass

SPLITS = ("train", "val", "test")  # in the order of the codes 0, 1, 2


@dataclass(frozen=True)
class Field:
    """A dataset of an HDF5 artefact.

    Attributes:
        dtype: NumPy dtype, or `utf-8` for strings.
        dims: names of the axes; in one file, axes of one name have one length. A number is a fixed length.
        about: one line for the reader.
        layout: `contiguous`; `rows`, one chunk for each row; `gzip`, the same, compressed.
        optional: may be absent.
    """

    dtype: str
    dims: tuple[str | int, ...]
    about: str
    layout: str = "contiguous"
    optional: bool = False


Schema = Mapping[str, Field]
