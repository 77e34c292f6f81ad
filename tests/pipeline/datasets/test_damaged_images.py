"""Damaged files of every format that Pillow writes: each is an image, or one line that names it."""

import io
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from pipeline.datasets.sources import open_image, stored_image
from pipeline.errors import MacError

EACH = 60
COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8))
GREY = COLOURS.convert("L")
KINDS = {
    "colours": COLOURS,
    "grey": GREY,
    "palette": COLOURS.convert("P", palette=Image.Palette.ADAPTIVE),
    "deep": Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257),
}
FORMATS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "png": ("PNG", {}, ("colours", "grey", "palette", "deep")),
    "jpeg": ("JPEG", {}, ("colours", "grey")),
    "webp": ("WEBP", {}, ("colours",)),
    "avif": ("AVIF", {}, ("colours",)),
    "gif": ("GIF", {}, ("palette",)),
    "lzw": ("TIFF", {"compression": "tiff_lzw"}, ("colours", "palette")),
    "deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}, ("colours", "deep")),
    "raw": ("TIFF", {}, ("palette", "deep")),
    "bmp": ("BMP", {}, ("colours", "palette")),
    "ppm": ("PPM", {}, ("colours", "deep")),
    "jp2": ("JPEG2000", {}, ("colours", "deep")),
    "ico": ("ICO", {"sizes": [(8, 8)]}, ("colours",)),
}


def seeds() -> Iterator[tuple[str, str]]:
    for name, (_, _, kinds) in FORMATS.items():
        for kind in kinds:
            if name not in ("webp", "avif") or features.check(name):
                yield name, kind


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The file with bytes cut off, changed, left out, added or moved."""
    new, at = bytearray(data), rng.randrange(len(data))
    how = rng.randrange(5)
    if how == 0:
        return data[:at]
    if how == 1:
        for _ in range(rng.choice([1, 2, 5])):
            new[rng.randrange(min(len(data), rng.choice([40, 200, 10**6])))] = rng.randrange(256)
    if how == 2:
        del new[at : at + rng.randrange(1, 20)]
    if how == 3:
        new[at:at] = rng.randbytes(rng.randrange(1, 20))
    if how == 4:
        new[at : at + 4] = rng.choice([b"\xff", b"\0", b"\x7f"]) * 4
    return bytes(new)


@pytest.mark.parametrize(("name", "kind"), list(seeds()))
def test_a_damaged_file_is_an_image_or_one_line(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)  # no time for large ones
    written, (form, options, _) = io.BytesIO(), FORMATS[name]
    KINDS[kind].save(written, form, **options)
    rng, file, messages = random.Random(f"{name} {kind}"), tmp_path / "x.img", list[str]()
    for number in range(EACH + 1):
        file.write_bytes(damaged(written.getvalue(), rng) if number else written.getvalue())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, about what it goes on with
            try:
                image = open_image(file)
            except MacError as error:
                messages.append(str(error))
                continue
        assert image.mode in ("RGB", "L", "P", "1")
        assert stored_image(image, 4, "squash", "bilinear").shape == (4, 4, 3)
        image.convert("L")
    assert 0 < len(messages) <= EACH
    for message in messages:
        assert message.startswith(f"{file}: cannot be read as an image (")
        assert len(message.splitlines()) == 1


def test_an_indexed_image_without_its_palette(tmp_path: Path) -> None:
    """Pillow loads it, and converts it to black; with a transparent index, the conversion fails."""
    written = io.BytesIO()
    for options in ({}, {"transparency": 3}):
        KINDS["palette"].save(written, "PNG", **options)
        before, _, rest = written.getvalue().partition(b"PLTE")
        length = int.from_bytes(before[-4:], "big")
        (tmp_path / "x.png").write_bytes(before[:-4] + rest[length + 4 :])
        with pytest.raises(MacError, match=r"x.png: cannot be read as an image \(its palette is missing\)"):
            open_image(tmp_path / "x.png")


def test_an_exception_without_words_that_the_conversion_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(image: Image.Image, mode: str) -> Image.Image:
        raise AssertionError

    KINDS["palette"].save(tmp_path / "x.png")
    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(MacError, match=r"x.png: cannot be read as an image \(damaged: AssertionError\)"):
        open_image(tmp_path / "x.png")
