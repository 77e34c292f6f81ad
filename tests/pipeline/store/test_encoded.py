"""Encoded pictures: the pixels that were written, read as an array of all of them would be."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import store
from pipeline.errors import MacError
from pipeline.schemas.images import SCHEMA
from pipeline.store.encoded import encode, size_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 7, 3), np.uint8)
IMAGES[1] = 9
IMAGES[2] = np.arange(7, dtype=np.uint8)[:, None]
FILES = [encode(image) for image in IMAGES]


def write(out: Path, files: list[bytes], start: list[int] | None = None) -> Path:
    """images.h5 with these files; by itself, each begins where the one before it ends."""
    whole = np.cumsum([0, *map(len, files)])[:-1] if start is None else start
    names = {"classes": ("a",), "attributes": ("b",)}
    with store.create(out, "images", SCHEMA, {}, {}, **names) as artefact:
        artefact.file.create_group("encoded").create_dataset("start", data=np.array(whole, np.int64))
        artefact.write("encoded/bytes", np.frombuffer(b"".join(files), np.uint8))
        for name in ("label", "attribute"):
            artefact.write(name, np.zeros(len(whole), np.int64))
        artefact.write("split", np.zeros(len(whole), np.int8))
        artefact.write("path", [str(row) for row in range(len(whole))])
    return out


def opened(out: Path) -> AbstractContextManager[store.Artefact]:
    return store.open_artefact(out, "images", SCHEMA, "run 'mac prepare'")


def test_a_picture_is_a_lossless_webp_file_of_the_same_pixels() -> None:
    for image, content in zip(IMAGES, FILES, strict=True):
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.size) == ("WEBP", (7, 5))
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), image)
        assert size_of(content) == (5, 7)


INDICES: list[Any] = [4, -1, (), np.s_[1:4], np.s_[:], np.s_[[0, 0, 5]], IMAGES[:, 0, 0, 0] > 100]
INDICES += [np.s_[2, 1:3, :, 0], np.s_[..., 0], np.s_[1:3, ..., 2]]


@pytest.mark.parametrize("index", INDICES)
def test_they_are_indexed_as_an_array(tmp_path: Path, index: Any) -> None:
    with opened(write(tmp_path / "images.h5", FILES)) as images:
        assert images["image"].shape == IMAGES.shape
        np.testing.assert_array_equal(images["image"][index], IMAGES[index])


def test_rows_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    rows = np.array([3, 0, 3, 5])
    with opened(write(tmp_path / "images.h5", FILES)) as images:
        np.testing.assert_array_equal(images.rows("image", rows), IMAGES[rows])
        assert (images.lengths["height"], images.lengths["width"]) == (5, 7)


def jpeg(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (FILES[2][:30] + bytes(len(FILES[2]) - 30), r"cannot be decoded"),
        (FILES[2][:40], r"cannot be decoded"),
        (jpeg(IMAGES[2]), "is no lossless WebP file"),
        (encode(IMAGES[2][:4]), "is 7 x 4 pixels, and the first image 7 x 5"),
        (FILES[2][:21] + b"\xff\xff\xff\xff" + FILES[2][25:], "is 16384 x 16384 pixels, more than 4096"),
    ],
)
def test_bad_bytes_are_told_with_their_row(tmp_path: Path, bad: bytes, message: str) -> None:
    out = write(tmp_path / "images.h5", [*FILES[:2], bad, *FILES[3:]])
    with opened(out) as images:
        np.testing.assert_array_equal(images["image"][[1, 3]], IMAGES[[1, 3]])
        with pytest.raises(
            MacError, match=f"images.h5: dataset 'image': row 2 {message}.*; run 'mac prepare'"
        ):
            images["image"][2]


def cut(out: Path) -> Path:
    return write(out, [FILES[0][:10], *FILES[1:]])


def out_of_order(out: Path) -> Path:
    return write(out, FILES, [0, 200, 100])


def beyond(out: Path) -> Path:
    return write(out, FILES, [0, len(b"".join(FILES))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut, "row 0 is no lossless WebP file"),
        (out_of_order, r"dataset 'encoded/start' has numbers that are not in rising order"),
        (beyond, r"dataset 'encoded/start' has .*, expected 0 to .*"),
    ],
)
def test_a_file_that_cannot_hold_pictures_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    out = make(tmp_path / "images.h5")
    out.with_name(".images.h5.verified").unlink()  # as one that comes from elsewhere
    with pytest.raises(MacError, match=message), opened(out):
        pass
