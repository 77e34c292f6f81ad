"""Encoded pictures: the pixels that were written, read as an array of all of them would be."""

import io
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from pipeline import machine, store
from pipeline.errors import MacError
from pipeline.schemas.images import SCHEMA
from pipeline.store.encoded import MOST_PACKED, Pictures, decode, encode, size_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 7, 3), np.uint8)
IMAGES[1] = 9
IMAGES[2] = np.arange(7, dtype=np.uint8)[:, None]
FILES = [encode(image) for image in IMAGES]


def write(out: Path, files: list[bytes], offset: list[int] | None = None) -> Path:
    """images.h5 with these files; by itself, each begins where the one before it ends."""
    bounds = np.cumsum([0, *map(len, files)]) if offset is None else np.array(offset, np.int64)
    rows = len(bounds) - 1
    names = {"classes": ("a",), "attributes": ("b",)}
    with store.create(out, "images", SCHEMA, {}, {}, **names) as artefact:
        artefact.file.create_group("encoded").create_dataset("offset", data=bounds)
        artefact.write("encoded/bytes", np.frombuffer(b"".join(files), np.uint8))
        for name in ("label", "attribute"):
            artefact.write(name, np.zeros(rows, np.int64))
        artefact.write("split", np.zeros(rows, np.int8))
        artefact.write("path", [str(row) for row in range(rows)])
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
        (FILES[2][:40], f"has 40 bytes, expected {len(FILES[2])}"),
        (FILES[2] + b"more", f"has {len(FILES[2]) + 4} bytes, expected {len(FILES[2])}"),
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


ALL = len(b"".join(FILES))
LEAST = -(-5 * 7 * 3 // MOST_PACKED)
TINY = encode(np.zeros((200, 200, 3), np.uint8))[:34]  # a whole file, without the zeros at its end


def of_offset(*offset: int) -> Callable[[Path], Path]:
    return lambda out: write(out, FILES, list(offset))


def bomb(out: Path) -> Path:
    """Many pictures of one colour, each in the 34 bytes that WebP packs it into."""
    return write(out, [TINY] * 50)


def padded(out: Path) -> Path:
    """A row that is as long as a large file."""
    return write(out, [FILES[0], FILES[1] + bytes(5000)])


@pytest.mark.parametrize("is_known", [False, True])  # as one that comes from elsewhere, or that is not
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut, "dataset 'image': row 0 is no lossless WebP file"),
        (of_offset(0, 200, 100, ALL), "dataset 'encoded/offset' has numbers that are not in rising order"),
        (
            of_offset(0, 2**63 - 1, -5, ALL),
            "dataset 'encoded/offset' has numbers that are not in rising order",
        ),
        (
            of_offset(0, 100, ALL + 1),
            rf"dataset 'encoded/offset' goes from 0 to {ALL + 1}, expected 0 to {ALL} ",
        ),
        (of_offset(0, 100), rf"dataset 'encoded/offset' goes from 0 to 100, expected 0 to {ALL} "),
        (of_offset(-1, ALL), rf"dataset 'encoded/offset' goes from -1 to {ALL}, expected 0 to {ALL} "),
        (bomb, "dataset 'image': has files of 34 to 34 bytes, expected 1200 to 164096 for 200 x 200 pixels"),
        (padded, rf"dataset 'image': has files of .* bytes, expected {LEAST} to 4236 for 7 x 5 pixels"),
    ],
)
def test_a_file_that_cannot_hold_pictures_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str, is_known: bool
) -> None:
    out = make(tmp_path / "images.h5")
    if not is_known:
        out.with_name(".images.h5.verified").unlink()
    with pytest.raises(MacError, match=f"^{out}: {message}"), opened(out):
        pass


def test_a_picture_of_one_colour_takes_a_hundredth_of_its_pixels() -> None:
    image = np.full((256, 256, 3), 7, np.uint8)
    content = encode(image)
    assert len(content) == image.nbytes // 100 + 1
    np.testing.assert_array_equal(decode(content, (256, 256)), image)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), image)


@pytest.mark.parametrize("side", [1, 2, 33, 256])
def test_noise_is_not_taken_for_too_large(tmp_path: Path, side: int) -> None:
    noise = RNG.integers(0, 256, (2, side, side, 3), np.uint8)
    with opened(write(tmp_path / "images.h5", [encode(image) for image in noise])) as images:
        np.testing.assert_array_equal(images["image"][:], noise)


def test_pictures_beyond_2_gib_are_written_and_read(tmp_path: Path) -> None:
    image = np.full((4096, 4096, 3), 5, np.uint8)
    content, most = encode(image), 1 << 26
    offset = np.append(np.arange(34) * most, 33 * most + len(content))
    assert offset[-2] > 2**31
    sizes = store.Sizes([np.diff(offset)])
    with (
        pytest.raises(KeyboardInterrupt),
        store.create(tmp_path / "images.h5", "images", SCHEMA, {}, {}) as artefact,
    ):
        artefact.write_pictures("image", sizes, [])
        np.testing.assert_array_equal(artefact.file["encoded/offset"][:], offset)
        raise KeyboardInterrupt  # what follows would read all of the file
    with h5py.File(tmp_path / "sparse.h5", "w") as file:
        dataset = file.create_dataset("bytes", (offset[-1],), np.uint8)
        dataset[: len(content)] = dataset[offset[-2] :] = np.frombuffer(content, np.uint8)
        file.flush()
        found = Pictures(dataset, offset, "it", "")
        assert found.shape == (34, 4096, 4096, 3)
        assert (found[33] == 5).all()


def test_they_can_be_read_in_a_fork(tmp_path: Path) -> None:
    """With threads of its own: those that had decoded before are not there."""
    with opened(write(tmp_path / "images.h5", FILES)) as images:
        np.testing.assert_array_equal(images["image"][0], IMAGES[0])
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(0 if (images["image"][:] == IMAGES).all() else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_as_many_threads_decode_as_this_process_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert machine.own_cores() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # as a worker of a cluster
    assert machine.own_cores() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # as a process of torchrun
    assert machine.own_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert machine.own_cores() == 1


def test_without_webp_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path / "images.h5", FILES)
    monkeypatch.setattr(features, "version", lambda name: None)
    with pytest.raises(MacError, match=r"^dataset.storage: encoded needs WebP, and this Pillow"), opened(out):
        pass


def test_a_closed_file_is_not_told_as_damaged(tmp_path: Path) -> None:
    with opened(write(tmp_path / "images.h5", FILES)) as images:
        found = images["image"]
    with pytest.raises(ValueError, match="file"):
        found[0]


def test_they_alone_are_the_dataset(tmp_path: Path) -> None:
    with opened(write(tmp_path / "images.h5", FILES)) as images:
        assert set(images) == {"image", "label", "attribute", "split", "path"}
        with pytest.raises(MacError, match="dataset 'image' is in chunks or encoded, expected one piece"):
            images.stored_at("image")


def test_any_program_finds_the_file_of_the_last_row(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "images.h5", FILES)) as images:
        start, stop = images["encoded/offset"][5:7]
        assert images["encoded/bytes"][start:stop].tobytes() == FILES[5]
