"""Stage prepare: rows as in the metadata, images of every kind, and what cannot be read."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.compute.context import Context
from pipeline.datasets.record import Record
from pipeline.datasets.sources import ImageFile
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from pipeline.setting import ToStored
from pipeline.steps import prepare
from tests.conftest import nothing, open_file

HEADER = "img_id,img_filename,y,split,place,place_filename"


def write_dataset(root: Path, rows: list[str], header: str = HEADER) -> None:
    """Images of different sizes and modes, one for each metadata row that names a plain file."""
    root.mkdir()
    (root / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    rng = np.random.default_rng(0)
    for number, row in enumerate(rows):
        name = row.split(",")[1]
        if name.endswith(".jpg") and ".." not in name:
            (root / name).parent.mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (30 + number, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels if number % 2 else pixels[..., 0]).save(root / name)


def write_true_mask(root: Path) -> None:
    """The true mask of `b/3.jpg`."""
    (root / "segmentations/b").mkdir(parents=True)
    mask = np.zeros((32, 44), np.uint8)
    mask[8:24, 11:33] = 255
    Image.fromarray(mask).save(root / "segmentations/b/3.png")


ROWS = ["1,a/1.jpg,0,0,0,x", "2,a/2.jpg,1,0,1,x", "3,b/3.jpg,0,1,1,x", "4,b/4.jpg,1,2,0,x"]


def params(root: Path, **changes: object) -> DatasetParams:
    values = {
        "name": "waterbirds",
        "root": str(root),
        "options": {},
        "stored_size": 32,
        "to_stored": "squash",
        "range": "auto",
        "interpolation": "bilinear",
        "storage": "pixels",
        "on_error": "fail",
        "on_duplicates": "fail",
    }
    return DatasetParams(**{**values, **changes})  # type: ignore[arg-type]


def run(tmp_path: Path, **changes: object) -> Path:
    out = tmp_path / "images.h5"
    context = Context("cpu", tmp_path / "scratch")
    prepare.prepare(nothing(tmp_path), out, params(tmp_path / "raw", **changes), context)
    return out


def test_rows_keep_the_order_and_contents_of_the_metadata(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    write_true_mask(tmp_path / "raw")
    with open_file(run(tmp_path)) as images:
        assert [p.decode() for p in images["path"][:]] == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"]
        assert images["label"][:].tolist() == [0, 1, 0, 1]
        assert images["attribute"][:].tolist() == [0, 1, 1, 0]
        assert images["split"][:].tolist() == [0, 0, 1, 2]
        assert images["has_foreground"][:].tolist() == [False, False, True, False]
        assert images["image"].chunks is None
        assert images.attribute("classes") == ["landbird", "waterbird"]
        found = images["foreground"][2]
        assert found[8:24, 8:24].all()
        assert found.sum() == 16 * 16
        for row, name in enumerate(("a/1.jpg", "a/2.jpg")):
            expected = (
                Image.open(tmp_path / "raw" / name).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
            )
            np.testing.assert_array_equal(images["image"][row], np.asarray(expected))
    assert not any((tmp_path / "scratch").iterdir())


def test_a_dataset_without_masks_has_no_foregrounds(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    with open_file(run(tmp_path, to_stored="center_crop")) as images:
        assert "foreground" not in images
        assert images.provenance.params["to_stored"] == "center_crop"


def test_images_are_scaled_as_interpolation_says(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    with open_file(run(tmp_path)) as images:
        assert "interpolation" not in images.provenance.params
        bilinear = images["image"][0]
    for name, resampling in (("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)):
        with open_file(run(tmp_path, interpolation=name)) as images:
            path = images["path"][0].decode()
            picture = Image.open(tmp_path / "raw" / path).convert("RGB").resize((32, 32), resampling)
            np.testing.assert_array_equal(images["image"][0], np.asarray(picture))
            assert (images["image"][0] != bilinear).any()
            assert images.provenance.params["interpolation"] == name


def test_the_bytes_do_not_depend_on_how_the_rows_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    first = run(tmp_path).read_bytes()
    monkeypatch.setattr(prepare, "BLOCK", 3)
    assert run(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            [*ROWS, "5,../out.jpg,0,0,0,x"],
            HEADER,
            r"metadata.csv, line 6: path '../out.jpg' leaves the dataset's folder",
        ),
        ([*ROWS, "5,/etc/passwd,0,0,0,x"], HEADER, r"line 6: path '/etc/passwd' leaves the dataset's folder"),
        (
            [*ROWS, "5,a/5.jpg,2,0,0,x"],
            HEADER,
            r"line 6: y is '2', expected 0 \(landbird\) or 1 \(waterbird\)",
        ),
        ([*ROWS, "5,a/5.jpg,0,7,0,x"], HEADER, r"line 6: split is '7', expected 0, 1 or 2"),
        ([*ROWS, "5,a/5.jpg,0"], HEADER, r"line 6: the line ends before column place"),
        (ROWS[:3], HEADER, r"no image is in the split test"),
        (
            ROWS,
            HEADER.replace("place,", "location,"),
            r"no column place; it has img_id, img_filename, y, split, location",
        ),
        ([], HEADER, r"metadata.csv: no rows"),
    ],
)
def test_bad_metadata_is_one_line(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    write_dataset(tmp_path / "raw", rows, header)
    with pytest.raises(MacError, match=message):
        run(tmp_path)
    assert not (tmp_path / "images.h5").exists()


def test_a_link_out_of_the_dataset_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "raw/a/1.jpg").read_bytes())
    (tmp_path / "raw/a/1.jpg").unlink()
    (tmp_path / "raw/a/1.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(MacError, match="line 2: path 'a/1.jpg' leaves the dataset's folder"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [(None, "cannot be read"), (b"", "cannot be read as an image"), (b"\xff\xd8\xff\xe0 not", "as an image")],
)
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, contents: bytes | None, message: str) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    bad = tmp_path / "raw/b/3.jpg"
    bad.unlink()
    if contents is not None:
        bad.write_bytes(contents)
    with pytest.raises(MacError, match=f"b/3.jpg: .*{message}"):
        run(tmp_path)


def test_no_dataset_folder(tmp_path: Path) -> None:
    with pytest.raises(MacError, match=r"metadata.csv: cannot be read \(No such file"):
        run(tmp_path)


def test_a_replaced_image_is_decoded_again_after_an_interruption(tmp_path: Path) -> None:
    """Unfinished work is taken up only for the very same files: the fingerprint has their sizes and times."""
    gradient().save(tmp_path / "1.png")
    stamps = [ImageFile("1.png").stamp(tmp_path)]
    (tmp_path / "1.png").touch()
    assert ImageFile("1.png").stamp(tmp_path) not in stamps


def decode_image(file: Path, side: int, how: ToStored = "squash") -> NDArray[np.uint8]:
    record = Record(ImageFile(file.name), 0, 0, 0)
    return prepare.decode(record, file.parent, params(file.parent, stored_size=side, to_stored=how)).image


def gradient() -> Image.Image:
    """Wider than high, dark to bright from left to right, a red corner at the top left."""
    pixels = np.repeat(np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))[..., None], 3, 2)
    pixels[:10, :10] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("progressive.jpg", lambda file: gradient().save(file, quality=95, progressive=True)),
        ("cmyk.jpg", lambda file: gradient().convert("CMYK").save(file, quality=95)),
        ("alpha.png", lambda file: gradient().convert("RGBA").save(file)),
        ("palette.png", lambda file: gradient().convert("P", palette=Image.Palette.ADAPTIVE).save(file)),
        ("lossless.webp", lambda file: gradient().save(file, lossless=True)),
        (
            "animated.gif",
            lambda file: gradient().save(file, save_all=True, append_images=[Image.new("RGB", (60, 40))]),
        ),
        (
            "rotated.jpg",
            lambda file: gradient().rotate(90, expand=True).save(file, quality=95, exif=orientation(6)),
        ),
    ],
)
def test_images_as_they_come(tmp_path: Path, name: str, save: Callable[[Path], None]) -> None:
    save(tmp_path / name)
    expected = np.asarray(gradient().resize((20, 20), Image.Resampling.BILINEAR)).astype(int)
    found = decode_image(tmp_path / name, 20).astype(int)
    assert np.abs(found - expected).mean() < 8, np.abs(found - expected).mean()


def orientation(code: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = code
    return exif


def test_grey_of_8_and_16_bits_is_the_same_image(tmp_path: Path) -> None:
    grey = np.asarray(gradient().convert("L"))
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    found = decode_image(tmp_path / "16.png", 20)
    assert np.array_equal(found, decode_image(tmp_path / "8.png", 20))
    assert found.max() > 200
    assert (found == found[..., :1]).all()


def test_what_has_no_range_or_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(
        MacError, match=r"float.tif: cannot be read as an image \(it holds floating-point values"
    ):
        decode_image(tmp_path / "float.tif", 4)
    gradient().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(
        MacError, match=r"bomb.png: cannot be read as an image \(Image size \(2400 pixels\) exceeds limit"
    ):
        decode_image(tmp_path / "bomb.png", 4)


def damage(root: Path) -> None:
    (root / "a/1.jpg").write_bytes((root / "a/1.jpg").read_bytes()[:300])
    (root / "b/4.jpg").unlink()


MORE = [*ROWS, "5,b/5.jpg,0,0,0,x", "6,b/6.jpg,1,2,1,x"]


def test_all_unreadable_files_are_listed_before_it_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path / "raw", MORE)
    damage(tmp_path / "raw")
    with pytest.raises(
        MacError, match=r"a/1.jpg: cannot be read as an image .*\(2 of 6 images .*prepare_errors.csv; .*skip"
    ):
        run(tmp_path)
    listed = list(csv.DictReader((tmp_path / "prepare_errors.csv").read_text().splitlines()))
    assert [(row["row"], row["path"]) for row in listed] == [("0", "a/1.jpg"), ("3", "b/4.jpg")]
    assert "No such file" in listed[1]["error"]
    assert "row 3: " in caplog.text
    assert not (tmp_path / "images.h5").exists()


def test_a_first_run_does_not_speak_of_earlier_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(tmp_path / "raw", ROWS)
    with caplog.at_level("INFO"):
        run(tmp_path)
    assert "done before" not in caplog.text


def test_unreadable_files_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(tmp_path / "raw", MORE)
    with open_file(run(tmp_path)) as images:
        whole = {name: images[name][:] for name in ("image", "label", "path")}
    damage(tmp_path / "raw")
    with open_file(run(tmp_path, on_error="skip")) as images:
        for name, values in whole.items():
            assert np.array_equal(images[name][:], values[[1, 2, 4, 5]]), name
    assert (
        "2 of 6 images cannot be read and are left out (1 of landbird_land, 1 of waterbird_land)"
        in caplog.text
    )


def test_a_split_or_class_that_would_be_empty_is_not_skipped(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", MORE)
    (tmp_path / "raw/a/2.jpg").unlink()
    with pytest.raises(MacError, match="no training readable image is of class waterbird"):
        run(tmp_path, on_error="skip")
    (tmp_path / "raw/b/3.jpg").unlink()
    with pytest.raises(MacError, match="no readable image is in the split val"):
        run(tmp_path, on_error="skip")


def test_the_square_in_the_middle_is_taken_without_scaling(tmp_path: Path) -> None:
    """CelebA's 178 x 218 pixels: the middle 178 rows, exactly."""
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "face.png", 178, "center_crop"), pixels[20:198])


def test_a_mask_is_cropped_as_its_image_is(tmp_path: Path) -> None:
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[5:20, 15:30] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "mask.png")
    record = Record(ImageFile("image.png"), 0, 0, 0, ImageFile("mask.png"))
    for how, side in (("squash", 24), ("center_crop", 30), ("center_crop", 15)):
        found = prepare.decode(record, tmp_path, params(tmp_path, stored_size=side, to_stored=how))
        assert found.foreground is not None
        np.testing.assert_array_equal(found.foreground, found.image[..., 0] > 127)


def test_a_mask_of_another_size_is_refused_and_can_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path / "raw", MORE)
    (tmp_path / "raw/segmentations/a").mkdir(parents=True)
    Image.fromarray(np.zeros((30, 43), np.uint8)).save(tmp_path / "raw/segmentations/a/1.png")
    with pytest.raises(
        MacError,
        match=r"segmentations/a/1.png: the mask is 43 x 30 pixels and its image a/1.jpg 44 x 30; give it",
    ):
        run(tmp_path)
    with open_file(run(tmp_path, on_error="skip")) as images:
        assert [p.decode() for p in images["path"][:]] == [
            "a/2.jpg",
            "b/3.jpg",
            "b/4.jpg",
            "b/5.jpg",
            "b/6.jpg",
        ]
    assert "1 of 6 images cannot be read and are left out (1 of landbird_land)" in caplog.text
