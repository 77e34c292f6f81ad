"""Grey of more than 8 bits: what is white, by the file or by `dataset.range`."""

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from pydantic import TypeAdapter, ValidationError

from pipeline.compute.context import Context
from pipeline.datasets import sources
from pipeline.datasets.sources import open_image
from pipeline.errors import MacError
from pipeline.params.dataset import Range
from pipeline.steps.prepare import prepare
from tests.conftest import nothing, open_file
from tests.pipeline.steps.test_prepare import params

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # all values of 12 bits
EXPECTED = np.rint(RAMP / 4095 * 255)
FULL = RAMP * 16 + RAMP // 256  # the same, scaled to 16 bits


def png(file: Path, values: NDArray[np.uint16], significant: int | None = None, colour: int = 0) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
        + (b"" if significant is None else chunk(b"sBIT", bytes([significant])))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(file: Path, values: NDArray[np.generic], **tags: float | str) -> None:
    written = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        written[int(name.removeprefix("tag"))] = value
    Image.fromarray(values).save(file, "TIFF", tiffinfo=written)


def signed(file: Path, values: NDArray[np.int16], more: Sequence[tuple[int, int]] = ()) -> None:
    """Signed 16 bits, which Pillow does not write. `more`: tags of type SSHORT and their values."""
    plain_tiff(file, values.shape, values.astype("<i2").tobytes(), 16, 2, more)


def packed(file: Path) -> None:
    """The ramp in 12 bits: two values in three bytes."""
    one, two = RAMP[:, 0::2].astype(int), RAMP[:, 1::2].astype(int)
    data = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], -1).astype(np.uint8)
    plain_tiff(file, RAMP.shape, data.tobytes(), 12, 1)


def plain_tiff(
    file: Path,
    shape: tuple[int, ...],
    data: bytes,
    bits: int,
    form: int,
    more: Sequence[tuple[int, int]] = (),
) -> None:
    """An uncompressed TIFF. `form`: its SampleFormat, 1 for unsigned and 2 for signed."""
    height, width = shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data)), (339, form)]
    entries = [struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in tags]
    entries += [struct.pack("<HHIhxx", tag, 8, 1, value) for tag, value in more]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    file.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


OME = '<OME><Pixels SignificantBits="12" Type="uint16"/></OME>'


@pytest.mark.parametrize(
    "write",
    [
        lambda file: png(file, RAMP, significant=12),
        lambda file: png(file, FULL, significant=12),  # as the standard has it
        lambda file: png(file, FULL),
        lambda file: tiff(file, RAMP, tag281=4095),
        lambda file: tiff(file, RAMP, tag341=4095.0),
        lambda file: tiff(file, RAMP, tag270=OME),
        packed,
        lambda file: tiff(file, FULL),
        lambda file: tiff(file, 65535 - FULL, tag262=0),  # 0 is white
        lambda file: tiff(file, RAMP.astype(np.int32), tag281=4095),
        lambda file: signed(file, RAMP.astype(np.int16) - 1024, [(340, -1024), (341, 3071)]),
        lambda file: file.write_bytes(b"P5 64 64 4095\n" + RAMP.astype(">u2").tobytes()),
        lambda file: file.write_bytes(b"P5 64 64 65535\n" + FULL.astype(">u2").tobytes()),
        lambda file: Image.fromarray(FULL).save(file, "JPEG2000"),
    ],
)
def test_the_range_that_a_file_declares(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "x")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x")), EXPECTED)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: png(file, RAMP, significant=16),
        lambda file: tiff(file, RAMP, tag281=65535),
        lambda file: file.write_bytes(b"P5 64 64 65535\n" + RAMP.astype(">u2").tobytes()),
    ],
)
def test_a_declared_range_of_all_bits_tells_nothing(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "x")
    assert open_image(tmp_path / "x").info["peak"] == 4095
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x", 4095.0)), EXPECTED)


def test_a_dark_image_that_is_scaled_as_the_standard_of_png_has_it(tmp_path: Path) -> None:
    png(tmp_path / "x.png", (RAMP // 16) * 16, significant=12)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x.png")), np.rint(RAMP // 16 * 16 / 257))


@pytest.mark.parametrize(
    "write",
    [
        lambda file: png(file, RAMP),
        lambda file: tiff(file, RAMP),
        lambda file: tiff(file, RAMP.astype(np.int32)),
        lambda file: tiff(file, RAMP.astype(np.float32)),
        lambda file: signed(file, RAMP.astype(np.int16)),
    ],
)
def test_the_range_that_params_give(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "x")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "x", 4095.0)), EXPECTED)
    clipped = open_image(tmp_path / "x", 1000.0)
    np.testing.assert_array_equal(np.asarray(clipped), np.rint(np.minimum(RAMP, 1000) / 1000 * 255))
    assert clipped.info["told"] == ["grey values beyond the range are black or white"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda file: tiff(file, RAMP.astype(np.int32)),
            r"it holds 32-bit values, whose range the file does",
        ),
        (
            lambda file: tiff(file, RAMP.astype(np.float32)),
            r"floating-point values, .*\(dataset.range can",
        ),
        (lambda file: signed(file, RAMP.astype(np.int16) - 1), r"it holds negative values, whose range"),
        (lambda file: tiff(file, np.full((4, 4), np.nan, np.float32), tag281=1), r"a value is not finite"),
    ],
)
def test_what_has_no_range_is_refused(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "x.tif")
    with pytest.raises(MacError, match=rf"x.tif: cannot be read as an image \(.*{message}"):
        open_image(tmp_path / "x.tif")


@pytest.mark.parametrize("white", [0, -1, 2**33, "full"])
def test_a_range_is_a_number_or_auto(white: object) -> None:
    check = TypeAdapter(Range).validate_python
    assert (check(2**32), check("auto")) == (2**32, "auto")
    with pytest.raises(ValidationError) as error:
        check(white)
    assert [each["msg"] for each in error.value.errors()] == [
        "Value error, should be a number above 0 and at most 2**32, or auto"
    ]


def test_colours_of_16_bits_are_cut_and_that_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    for values, words in ((FULL, "used"), (RAMP, "nearly black; save these images with 8 bits")):
        png(file, np.repeat(values[..., None], 3, 2), colour=2)
        image = open_image(file)
        np.testing.assert_array_equal(np.asarray(image)[..., 1], values >> 8)
        assert words in image.info["told"][0]
        with pytest.raises(MacError, match="grey with alpha, for which dataset.range must be auto"):
            open_image(file, 4095.0)
    png(file, np.stack([RAMP, np.full_like(RAMP, 65535)], -1), colour=4)
    image = open_image(file)
    np.testing.assert_array_equal(np.asarray(image)[..., 0], RAMP >> 8)
    assert image.info["told"][0].startswith("16 bits for each colour, or grey with alpha, the high 8")


def test_grey_of_more_than_8_bits_counts_four_times_as_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[int] = []
    monkeypatch.setattr(sources, "announce", announced.append)
    png(tmp_path / "deep.png", RAMP)
    open_image(tmp_path / "deep.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "colours.png")
    open_image(tmp_path / "colours.png")
    assert announced == [4 * 64 * 64, 64 * 64]


def test_a_set_that_is_nearly_black_is_told_with_the_number_to_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["path,label,split"]
    (tmp_path / "raw").mkdir()
    for number, split in enumerate(("train", "train", "val", "test")):
        rows.append(f"{number}.png,{number % 2},{split}")
        png(tmp_path / f"raw/{number}.png", RAMP[:: number + 1, :: number + 1])
    (tmp_path / "raw/m.csv").write_text("\n".join(rows))
    out, context = tmp_path / "images.h5", Context("cpu", tmp_path / "scratch")

    def run(white: object) -> bytes:
        given = params(
            tmp_path / "raw", name="folder", options={"metadata": "m.csv"}, stored_size=64, range=white
        )
        caplog.clear()
        prepare(nothing(tmp_path), out, given, context)
        return out.read_bytes()

    run("auto")
    assert (
        "all 4 images of 16 bits are nearly black: their highest value is 4095 of 65535; if 4095 is white in "
        "them, set dataset.range to it; if they are right, set it to 65535"
    ) in caplog.text
    with open_file(out) as images:
        assert "range" not in images.provenance.params
    run(65535)
    assert "nearly black" not in caplog.text
    run(4095)
    assert not caplog.records
    with open_file(out) as images:
        assert images.provenance.params["range"] == 4095
        np.testing.assert_array_equal(images["image"][0, ..., 0], EXPECTED)
    png(tmp_path / "raw/3.png", FULL)
    run("auto")
    assert "nearly black" not in caplog.text
