"""Images in DICOM files, as a viewer shows them: rescaled, and with their window (pydicom)."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.depth import PEAK, TOLD, UNKNOWN_RANGE, scaled
from pipeline.datasets.memory import announce
from pipeline.errors import MacError
from pipeline.setting import Range

SUFFIX = ".dcm"
_FAR = 1e9  # beyond any value


def is_dicom(file: Path, opened: BinaryIO) -> bool:
    """Whether the file has DICOM's suffix or mark. Many DICOM files have no suffix."""
    is_marked = opened.read(132)[128:] == b"DICM"
    opened.seek(0)
    return is_marked or file.suffix.lower() == SUFFIX


def read_dicom(file: BinaryIO, white: Range) -> Image.Image:
    """The first frame of a DICOM file as RGB or 8-bit grey.

    Grey is rescaled as the file says (modality LUT). Its window, or else its lookup table, says what is black
    and white (PS3.3 C.11.2). If it has neither, black and white are the ends of the bits stored; a number in
    `white` replaces them. MONOCHROME1 is inverted.

    Raises:
        MacError: pydicom is not installed.
        Exception: whatever pydicom raises if it cannot read the file.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels.processing import apply_color_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise MacError(f"{file.name}: a DICOM file needs pydicom: pip install 'mac-robust[dicom]'") from None
    told = []
    dicom = dcmread(file)
    announce(8 * int(dicom.get("Rows") or 0) * int(dicom.get("Columns") or 0))
    frames = int(dicom.get("NumberOfFrames") or 1)
    if frames > 1:
        told.append("of several frames in a DICOM file, only the first is used")
    values = pixel_array(dicom, index=0)
    kind = str(dicom.PhotometricInterpretation)
    if not kind.startswith("MONOCHROME"):
        if kind == "PALETTE COLOR":
            values = apply_color_lut(values, dicom)
            bits = 8 * values.dtype.itemsize
        else:
            bits = int(dicom.BitsStored)
        image = scaled(values, 0, (1 << bits) - 1)
        image.info = {TOLD: told}
        return image
    values, black, top, how = _shown(dicom, values, white)
    image = scaled(values, top, black) if kind == "MONOCHROME1" else scaled(values, black, top)
    image.info = {TOLD: [*told, how]}
    if how == _NO_WINDOW and dicom.BitsStored == 16:
        image.info[PEAK] = float(values.max())
    return image


_NO_WINDOW = "DICOM without a window; black and white are the ends of its bits"


def _shown(dicom: Any, values: NDArray[Any], white: Range) -> tuple[NDArray[Any], float, float, str]:
    """Values, what is black in them, what is white, and how that was found."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

    values = apply_modality_lut(values, dicom)
    if dicom.get("WindowWidth") is not None and dicom.get("WindowCenter") is not None:
        black, top = apply_windowing(np.array([-_FAR, _FAR]), dicom)
        return apply_windowing(values, dicom), float(black), float(top), "DICOM, seen through its window"
    if "VOILUTSequence" in dicom:
        bits = int(dicom.VOILUTSequence[0].LUTDescriptor[2])
        found = apply_voi(values.astype(np.int64), dicom)
        return found, 0, float((1 << bits) - 1), "DICOM, seen through its lookup table"
    bits, is_signed = int(dicom.BitsStored), bool(dicom.PixelRepresentation)
    if white != "auto" and bits > 8:
        return values, 0, white, "DICOM without a window; dataset.range is white"
    if bits > 16:
        raise ValueError(f"it holds {bits}-bit values, {UNKNOWN_RANGE}")
    low = -(1 << bits - 1) if is_signed else 0
    ends = np.array([low, low + (1 << bits) - 1]).astype(np.int64)
    black, top = apply_modality_lut(ends, dicom)
    return values, float(black), float(top), _NO_WINDOW
