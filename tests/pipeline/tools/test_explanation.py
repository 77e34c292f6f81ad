from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import MacError
from pipeline.method.knee import at_knee
from pipeline.method.masks import top_k_mask, upsample
from pipeline.method.pixels import pixel_count
from pipeline.project import Project
from pipeline.results import visual
from pipeline.results.pictures import as_rgb
from pipeline.results.sides import Side
from pipeline.tools.explanation import explain
from pipeline.tools.prediction import Pair, listed


@pytest.fixture(scope="module")
def pair(artefacts: Project) -> Pair:
    return Pair.load(artefacts, "dfr", torch.device("cpu"))


@pytest.fixture(scope="module")
def files(artefacts: Project) -> list[Path]:
    return listed([str(artefacts.data.parent / "raw")])[:2]


def test_one_row_for_each_image(pair: Pair, files: list[Path]) -> None:
    assert explain(pair, files, 0.1, None).size == (4 * 248 + 8 + 260, 2 * 270)


@pytest.mark.parametrize(("top_k", "sides"), [(0.1, None), (0.1, ["rest", "core"]), (None, ["core", "rest"])])
def test_panels_are_image_map_core_and_map(
    pair: Pair, files: list[Path], top_k: float | None, sides: list[Side] | None
) -> None:
    sheet = np.asarray(explain(pair, files, top_k, "landbird", sides))
    pixels = pair.transform.pixels(files[0])
    maps = [upsample(each, 64)[0] for each in pair.maps(pair.state(pixels[None]), 0)]
    image = as_rgb(pixels)
    before, after = visual.heat_over(image, [each.numpy() for each in maps])
    core = top_k_mask(maps[0][None], pixel_count(0.1, 64))[0].numpy()
    if top_k is None:
        raw = pair.maps(pair.state(pixels[None]), 0)[0]
        core = at_knee(pair.model, pixels[None], raw, torch.tensor([0])).mask[0].numpy()
    if sides and sides[0] == "rest":
        core = ~core
    for number, picture in enumerate((image, before, visual.overlay(image, core), after)):
        large = Image.fromarray(picture).resize((240, 240), Image.Resampling.BICUBIC)
        left = 8 + number * 248
        np.testing.assert_array_equal(sheet[22:262, left : left + 240], np.asarray(large))


def test_flipped_maps_are_means_with_those_of_the_mirror_image(pair: Pair, files: list[Path]) -> None:
    sheet = np.asarray(explain(pair, files[:1], 0.1, "landbird", flip=True))
    pixels = pair.transform.pixels(files[0])
    here, there = (pair.maps(pair.state(each[None]), 0) for each in (pixels, pixels.flip(2)))
    maps = [upsample((a + b.flip(2)) / 2, 64)[0] for a, b in zip(here, there, strict=True)]
    image = as_rgb(pixels)
    before, after = visual.heat_over(image, [each.numpy() for each in maps])
    core = visual.overlay(image, top_k_mask(maps[0][None], pixel_count(0.1, 64))[0].numpy())
    for number, picture in enumerate((before, core, after), 1):
        large = Image.fromarray(picture).resize((240, 240), Image.Resampling.BICUBIC)
        left = 8 + number * 248
        np.testing.assert_array_equal(sheet[22:262, left : left + 240], np.asarray(large))


def test_the_class_is_the_one_that_the_second_head_sees(pair: Pair, files: list[Path]) -> None:
    seen = [
        pair.classes[int(p[0, 1].argmax())]
        for p in (pair.probabilities(pair.state(pair.transform.pixels(file)[None])) for file in files)
    ]
    for file, name in zip(files, seen, strict=True):
        one, other = explain(pair, [file], 0.1, None), explain(pair, [file], 0.1, name)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_what_cannot_be_explained(pair: Pair, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MacError, match="target cow: no such class; there are landbird, waterbird"):
        explain(pair, files, 0.1, "cow")
    with pytest.raises(MacError, match="top_k: 100000 pixels, but the input grid has only 64² = 4096"):
        explain(pair, files, 100000, None)
    with pytest.raises(MacError, match="top_k: 1.5 should be a whole number of pixels"):
        explain(pair, files, 1.5, None)
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(MacError, match="broken.jpg: cannot be read as an image"):
        explain(pair, [tmp_path / "broken.jpg"], 0.1, None)
