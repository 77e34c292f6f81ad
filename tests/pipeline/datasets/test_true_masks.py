"""True masks in the ways in which people store them: the foreground is the same square in all of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.compute.context import Context
from pipeline.datasets import true_masks
from pipeline.datasets.sources import ImageFile
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from pipeline.steps.prepare import prepare
from pipeline.tools.inspection import describe
from tests.conftest import nothing

SQUARE = np.zeros((32, 40), np.uint8)
SQUARE[8:24, 10:30] = 1
RIM = np.zeros_like(SQUARE, np.bool_)
RIM[6:26, 8:32] = True
RIM &= SQUARE == 0
OBJECTS = SQUARE * np.where(np.arange(40) < 20, 3, 7).astype(np.uint8)  # two of them, 3 and 7
AGREEMENT = np.where(np.arange(40) % 2, 153, 255)  # of CUB's annotators, in fifths
SHADES = np.where(SQUARE, 200, np.arange(40) * 3).astype(np.uint8)


def voc_colours() -> list[int]:
    """VOC's palette, by its definition: the bits of the index, from the lowest, in turn to R, G and B."""
    colours = []
    for index in range(256):
        for channel in range(3):
            colours.append(sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)))
    return colours


def indexed(index: NDArray[Any], palette: list[int]) -> Image.Image:
    image = Image.new("P", (40, 32))
    image.putdata(index.astype(np.uint8).ravel().tolist())
    image.putpalette(palette)
    return image


def grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def wide(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16))


def coloured(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return (SQUARE[..., None] * np.array(colour)).astype(np.uint8)


VOC = voc_colours()
MASKS = {
    "0 and 255": grey(SQUARE * 255),
    "one bit": grey(SQUARE * 255).convert("1"),
    "0 and 1": grey(SQUARE),
    "0 and 2": grey(SQUARE * 2),
    "0 and 100": grey(SQUARE * 100),
    "numbers of objects": grey(OBJECTS),
    "VOC without its palette": grey(np.where(RIM, 255, SQUARE * 15)),
    "VOC": indexed(SQUARE * 15, VOC),
    "VOC with void": indexed(np.where(RIM, 255, OBJECTS), VOC),
    "VOC of a grey class": indexed(SQUARE * 7, VOC),
    "palette black, white": indexed(SQUARE, [0, 0, 0, 255, 255, 255]),
    "palette white, black": indexed(1 - SQUARE, [255, 255, 255, 0, 0, 0]),
    "palette black, red": indexed(SQUARE, [0, 0, 0, 255, 0, 0]),
    "palette red, black": indexed(1 - SQUARE, [255, 0, 0, 0, 0, 0]),
    "palette without black": indexed(SQUARE, [68, 1, 84, 253, 231, 37]),
    "0 and 1 in three channels": Image.fromarray(coloured((1, 1, 1))),
    "red on black": Image.fromarray(coloured((128, 0, 0))),
    "VOC's colours": grey(np.where(RIM[..., None], (224, 224, 192), coloured((192, 128, 128)))),
    "with alpha": grey(SQUARE * 255).convert("LA"),
    "0 and 128": grey(SQUARE * 128),
    "a cut-out": Image.merge("RGBA", [grey(SHADES)] * 3 + [grey(SQUARE * 255)]),
    "16 bits, 0 and 1": wide(SQUARE),
    "16 bits, 0 and 255": wide(SQUARE * 255),
    "16 bits, 0 and 65535": wide(SQUARE.astype(int) * 65535),
    "16 bits, numbers of objects": wide(OBJECTS.astype(int) * 100),
    "annotators": grey(np.where(SQUARE, AGREEMENT, np.where(RIM, 102, np.where(np.arange(40) % 3, 0, 51)))),
    "shades": grey(SHADES),
}


def foreground(root: Path, name: str) -> NDArray[np.bool_]:
    """(32, 40), of a mask file."""
    return np.asarray(true_masks.load(ImageFile(name), ImageFile("image.png"), (40, 32), root)) > 127


@pytest.mark.parametrize("name", MASKS)
def test_the_square_is_the_foreground(tmp_path: Path, name: str) -> None:
    MASKS[name].save(tmp_path / "mask.png")
    np.testing.assert_array_equal(foreground(tmp_path, "mask.png"), SQUARE == 1)


@pytest.mark.parametrize(
    ("file", "save"),
    [
        ("mask.jpg", lambda path: grey(SQUARE * 255).save(path, quality=60)),
        ("mask.gif", lambda path: indexed(SQUARE, [0, 0, 0, 255, 255, 255]).save(path)),
        ("mask.bmp", lambda path: grey(SQUARE).save(path)),
        ("float.tif", lambda path: Image.fromarray(SQUARE.astype(np.float32)).save(path)),
        ("int.tif", lambda path: Image.fromarray(SQUARE.astype(np.int32)).save(path)),
    ],
)
def test_in_other_files_too(tmp_path: Path, file: str, save: Callable[[Path], None]) -> None:
    save(tmp_path / file)
    np.testing.assert_array_equal(foreground(tmp_path, file), SQUARE == 1)


@pytest.mark.parametrize("values", [SHADES, AGREEMENT * SQUARE, RIM * 102, SQUARE * 255])
def test_greys_keep_their_bytes(values: NDArray[Any]) -> None:
    np.testing.assert_array_equal(np.asarray(true_masks.foreground_of(grey(values))), values)


@pytest.mark.parametrize(
    ("values", "objects", "how"),
    [
        ([0, 12, 150, 160], [0, 1, 1, 1], "numbers"),
        ([0, 10, 128, 255], [0, 0, 1, 1], "greys"),
        ([0, 128, 200, 250], [0, 1, 1, 1], ""),
        ([0, 51, 153, 255], [0, 0, 1, 1], ""),
        ([0, 5, *[255] * 20], [0, 1, *[0] * 20], ""),  # a small object in a wide rim
    ],
)
def test_what_may_be_numbers_or_greys_is_told(values: list[int], objects: list[int], how: str) -> None:
    found = true_masks.foreground_of(grey(np.array([values])))
    assert (np.asarray(found) > 127).tolist() == [[bool(each) for each in objects]]
    assert found.info.get("told", []) == ([true_masks.OR_GREYS.format(how)] if how else [])


def test_colours_without_black_do_not_say_which_is_the_background(tmp_path: Path) -> None:
    Image.fromarray(coloured((0, 255, 255)) ^ 255).save(tmp_path / "mask.png")  # red on white
    with pytest.raises(MacError, match=r"mask.png: .*no colour in it is black, so which one is the back"):
        foreground(tmp_path, "mask.png")


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_the_noise_of_a_jpeg_is_no_object(tmp_path: Path, suffix: str) -> None:
    grey(np.random.default_rng(0).integers(0, 4, (32, 40))).save(tmp_path / f"mask.{suffix}")
    assert not foreground(tmp_path, f"mask.{suffix}").any()


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    Image.fromarray(SQUARE.astype(np.float32) * 0.7).save(tmp_path / "mask.tif")
    (tmp_path / "no.png").write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    grey(SQUARE).save(tmp_path / "Mask.png")
    for name, message in (
        ("mask.tif", "floating-point values other than 0 and 1"),
        ("no.png", "no.png: cannot be read as an image .no known format of images.; replace it"),
        ("pipe.png", "pipe.png: is a named pipe, and no file"),
        ("mask.png", "No such file .*Mask.png' is there, which differs in upper and lower case"),
    ):
        with pytest.raises(MacError, match=message):
            foreground(tmp_path, name)


def photo(file: Path, size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[true_masks.ORIENTATION] = orientation
    Image.new("RGB", size).save(file, exif=exif)


def test_a_mask_drawn_before_exif_turned_its_image_is_told(tmp_path: Path) -> None:
    photo(tmp_path / "photo.jpg", (40, 32), 6)
    grey(SQUARE).save(tmp_path / "mask.png")
    image, mask = ImageFile("photo.jpg"), ImageFile("mask.png")
    with pytest.raises(
        MacError, match="40 x 32 pixels and its image photo.jpg 32 x 40; .* EXIF orientation, and"
    ):
        true_masks.load(mask, image, image.load(tmp_path).size, tmp_path)
    grey(SQUARE.T).save(tmp_path / "mask.png")
    assert not true_masks.is_doubtful(mask, image, tmp_path)


@pytest.mark.parametrize(
    ("size", "orientation", "doubtful"),
    [
        ((32, 32), 6, True),
        ((40, 32), 3, True),
        ((40, 32), 2, True),
        ((40, 32), 6, False),
        ((32, 32), 1, False),
    ],
)
def test_where_both_fit_it_is_told_that_one_cannot_know(
    tmp_path: Path, size: tuple[int, int], orientation: int, doubtful: bool
) -> None:
    photo(tmp_path / "photo.jpg", size, orientation)
    grey(SQUARE).save(tmp_path / "mask.png")
    assert true_masks.is_doubtful(ImageFile("mask.png"), ImageFile("photo.jpg"), tmp_path) == doubtful
    photo(tmp_path / "mask.jpg", size, orientation)  # a mask that is turned as its image is
    assert not true_masks.is_doubtful(ImageFile("mask.jpg"), ImageFile("photo.jpg"), tmp_path)


def test_odd_masks_are_told_by_class_and_inspect_counts_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = []
    masks = {"good": SQUARE, "none": SQUARE * 0, "all": SQUARE * 0 + 1}
    for name, values in masks.items():
        grey(values).save(tmp_path / f"{name}.png")
    photo(tmp_path / "turned.jpg", (40, 32), 3)
    Image.new("RGB", (40, 32)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:200])
    for number, mask in enumerate(["good", "none", "all", "none", "good", "good", "", "none"]):
        Image.new("RGB", (40, 32), (25 * number, 200, 0)).save(tmp_path / f"{number}.jpg")
        split = ("train", "val", "test")[number // 2 % 3]
        rows.append(f"{number}.jpg,{'ab'[number % 2]},{split},{mask and mask + '.png'}")
    rows += ["turned.jpg,a,train,good.png", "cut.jpg,b,train,none.png"]
    (tmp_path / "m.csv").write_text("path,label,split,mask\n" + "\n".join(rows) + "\n")
    params = DatasetParams(
        name="folder",
        root=str(tmp_path),
        options={"metadata": "m.csv", "mask": "mask"},
        stored_size=16,
        to_stored="squash",
        range="auto",
        interpolation="bilinear",
        on_duplicates="fail",
        storage="pixels",
        on_error="skip",
    )
    out = tmp_path / "data" / "images.h5"
    out.parent.mkdir()
    prepare(nothing(tmp_path), out, params, Context("cpu", tmp_path / "scratch"))
    said = [record.message for record in caplog.records if record.message.startswith("true masks: ")]
    assert said == [
        "true masks: 3 have no foreground (b 3); 1 have nothing but foreground (a 1); 1 may be turned, since "
        "EXIF turns their images and they have the same size before and after (a 1)"
    ]
    assert "true masks: 8 of 9; 3 have no foreground, 1 have nothing but foreground" in describe(out)
