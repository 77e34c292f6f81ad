"""DICOM files look as in a viewer: an independent formula of the standard, not pydicom's own."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.datasets import dicom
from pipeline.datasets.sources import open_image
from pipeline.errors import MacError

pytest.importorskip("pydicom", reason="the extra dicom is not installed")

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
FULL = RAMP / 4095 * 255


def write(file: Path, values: NDArray[Any], **changes: object) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dicom = Dataset()
    dicom.file_meta = FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.file_meta.MediaStorageSOPClassUID = dicom.SOPClassUID = SecondaryCaptureImageStorage
    dicom.file_meta.MediaStorageSOPInstanceUID = dicom.SOPInstanceUID = "1.2.3"
    colours = 3 if values.shape[-1] == 3 else 1
    dicom.Rows, dicom.Columns = values.shape[-3:-1] if colours == 3 else values.shape[-2:]
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation = (
        colours,
        ("RGB" if colours == 3 else "MONOCHROME2"),
    )
    dicom.BitsAllocated = dicom.BitsStored = 8 * values.dtype.itemsize
    dicom.PixelRepresentation = int(values.dtype.kind == "i")
    if colours == 3:
        dicom.PlanarConfiguration = 0
    for name, value in changes.items():
        setattr(dicom, name, value)
    dicom.HighBit = dicom.BitsStored - 1
    dicom.PixelData = values.tobytes()
    dicom.save_as(file, enforce_file_format=True)


def windowed(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1, in [0, 255]."""
    return np.asarray(((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255)


SIGNED = RAMP.astype(np.int16)


@pytest.mark.parametrize(
    ("values", "changes", "expected", "told"),
    [
        (RAMP, {"BitsStored": 12}, FULL, "DICOM without a window"),
        (
            RAMP,
            {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"},
            255 - FULL,
            "without a window",
        ),
        (RAMP, {"BitsStored": 12, "RescaleSlope": 2, "RescaleIntercept": -1024}, FULL, "without a window"),
        (SIGNED - 2048, {"BitsStored": 12}, FULL, "DICOM without a window"),
        (
            RAMP,
            {"BitsStored": 12, "WindowCenter": 1024, "WindowWidth": 512},
            windowed(RAMP, 1024, 512),
            "window",
        ),
        (
            RAMP,
            {"WindowCenter": [1024, 40], "WindowWidth": [512, 80]},
            windowed(RAMP, 1024, 512),
            "its window",
        ),
        (
            SIGNED,  # Hounsfield units, the window of soft tissue
            {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400},
            windowed(SIGNED - 1024, 40, 400),
            "DICOM, seen through its window",
        ),
        (
            RAMP,
            {"WindowCenter": 1024, "WindowWidth": 512, "PhotometricInterpretation": "MONOCHROME1"},
            255 - windowed(RAMP, 1024, 512),
            "its window",
        ),
        (np.stack([RAMP, RAMP * 0]), {"BitsStored": 12, "NumberOfFrames": 2}, FULL, "only the first is used"),
        ((RAMP // 16).astype(np.uint8), {}, RAMP // 16, "without a window"),
    ],
)
def test_grey(
    tmp_path: Path, values: NDArray[Any], changes: dict[str, object], expected: NDArray[Any], told: str
) -> None:
    write(tmp_path / "x.dcm", values, **changes)
    image = open_image(tmp_path / "x.dcm")
    assert np.abs(np.asarray(image) - expected).max() <= 0.51
    assert told in " ".join(image.info["told"])


def test_colours_and_a_file_without_a_suffix(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    write(tmp_path / "IM0001", colours)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "IM0001")), colours)


def test_a_range_where_there_is_no_window(tmp_path: Path) -> None:
    file = tmp_path / "x.dcm"
    write(file, RAMP)
    assert open_image(file).info["peak"] == 4095
    assert np.abs(np.asarray(open_image(file, 4095.0)) - FULL).max() <= 0.51
    write(file, RAMP, WindowCenter=1024, WindowWidth=512)
    assert np.array_equal(np.asarray(open_image(file, 4095.0)), np.asarray(open_image(file)))


def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.dcm"
    write(file, RAMP, WindowCenter=1, WindowWidth=0)
    with pytest.raises(MacError, match=r"x.dcm: cannot be read as an image \(.*Window Width must be"):
        open_image(file)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(MacError, match=r"cannot be read as an image \(The number of bytes of pixel data"):
        open_image(file)
    file.write_bytes(b"no such thing")
    with pytest.raises(MacError, match=r"cannot be read as an image \(File is missing DICOM"):
        open_image(file)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        MacError, match=r"x.dcm: a DICOM file needs pydicom: pip install 'mac-robust\[dicom\]'"
    ):
        open_image(file)


def test_its_wide_numbers_count_eight_times_as_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[int] = []
    monkeypatch.setattr(dicom, "announce", announced.append)
    write(tmp_path / "x.dcm", RAMP)
    open_image(tmp_path / "x.dcm")
    assert announced == [8 * 64 * 64]
