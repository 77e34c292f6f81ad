import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import MacError
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.project import Project
from pipeline.spec import ModelSpec
from pipeline.tools.model import Transform, load_model
from tests import made_up
from tests.conftest import restate


def first_image(project: Project) -> Path:
    return project.data.parent / "raw" / "00.png"


def cached(project: Project, artefact: str, head: int | None = None) -> torch.Tensor:
    """Logits of the first training image by features.h5 and a head."""
    with project.open("features", artefact) as given:
        folder = given.model(artefact)
        tensors = folder.read()
        weight, bias = (
            (tensors["head.weight"], tensors["head.bias"])
            if head is None
            else (tensors["dfr.weight"][head], tensors["dfr.bias"][head])
        )
        return torch.from_numpy(given.file("features")["train/original"][0] @ weight.T + bias)


@pytest.mark.parametrize("name", ["erm", "retrained"])
def test_a_model_in_two_lines(artefacts: Project, name: str) -> None:
    model, transform = load_model(artefacts.path(name))
    x = transform(first_image(artefacts))[None]
    torch.testing.assert_close(model(x)[0], cached(artefacts, name), rtol=1e-4, atol=1e-5)
    assert not model.training
    with Image.open(first_image(artefacts)) as image:
        assert torch.equal(transform(image), x[0])


def test_the_range_of_the_training_images_holds_for_new_ones(artefacts: Project, tmp_path: Path) -> None:
    _, transform = load_model(artefacts.path("erm"))
    grey = np.random.default_rng(0).integers(0, 256, (80, 72), np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 4).save(tmp_path / "10.png")  # 1020 is white
    eight = transform.pixels(tmp_path / "8.png")
    assert torch.equal(Transform(replace(transform.spec, range=1020)).pixels(tmp_path / "10.png"), eight)
    assert int(transform.pixels(tmp_path / "10.png").max()) <= 4
    with (
        Image.open(tmp_path / "10.png") as image,
        pytest.raises(MacError, match="an image of mode I;16 has no known range; give the path of its file"),
    ):
        transform(image)


def test_a_method_of_the_baselines(artefacts: Project) -> None:
    model, transform = load_model(artefacts.path("baselines"), method="dfr")
    x = transform(first_image(artefacts))[None]
    torch.testing.assert_close(model(x)[0], cached(artefacts, "baselines", 2), rtol=1e-4, atol=1e-5)


def test_what_is_no_model_and_what_needs_a_method(artefacts: Project, tmp_path: Path) -> None:
    with pytest.raises(MacError, match=r"images\.h5: is images, and no model folder"):
        load_model(artefacts.path("images"))
    with pytest.raises(MacError, match="baselines: holds the heads of several methods; name one of them"):
        load_model(artefacts.path("baselines"))
    with pytest.raises(MacError, match="retrained: holds one model; only data/baselines has several methods"):
        load_model(artefacts.path("retrained"), method="dfr")
    with pytest.raises(MacError, match="nowhere: no such file or folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("method", ["mac", "cow"])
def test_a_method_that_baselines_never_has(artefacts: Project, method: str) -> None:
    with pytest.raises(MacError, match=f"baselines: {method} is none of its methods, .*/retrained$"):
        load_model(artefacts.path("baselines"), method=method)


def test_a_device_that_is_not_there(artefacts: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MacError, match="device cuda: PyTorch sees no CUDA device"):
        load_model(artefacts.path("erm"), "cuda")
    with pytest.raises(MacError, match="device x: should be auto, cpu"):
        load_model(artefacts.path("erm"), "x")


def test_an_image_goes_through_the_steps_of_the_stages() -> None:
    """An image of the stored size is not scaled: what is left is the middle of it, normalised."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)
    transform = Transform(made_up.SPEC)
    expected = to_input_grid(torch.from_numpy(pixels)[None], made_up.SPEC)
    assert torch.equal(transform.pixels(Image.fromarray(pixels)), expected[0])
    x = normalize(expected, made_up.SPEC.normalization)[0]
    assert torch.equal(transform(Image.fromarray(pixels)), x)
    assert transform(Image.new("L", (300, 200))).shape == (3, 64, 64)


def test_a_new_image_is_scaled_as_model_json_says(artefacts: Project) -> None:
    _, transform = load_model(artefacts.path("erm"))
    noise = np.random.default_rng(0).integers(0, 256, (97, 203, 3), dtype=np.uint8)
    picture, spec = Image.fromarray(noise), replace(transform.spec, interpolation="bicubic")
    assert ModelSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec
    assert "interpolation" not in transform.spec.as_json()
    side = (spec.stored_size, spec.stored_size)
    stored = torch.from_numpy(np.array(picture.resize(side, Image.Resampling.BICUBIC)))
    assert torch.equal(Transform(spec).pixels(picture), to_input_grid(stored[None], spec)[0])


def test_the_normalisation_is_the_one_in_model_json(own_artefacts: Project) -> None:
    folder, file = own_artefacts.path("retrained"), first_image(own_artefacts)
    model, before = load_model(folder)
    to_grid = {"mean": [0.0, 0.0, 0.0], "std": [2.0, 4.0, 8.0]}
    restate(folder, lambda about: about["spec"].update(normalization=to_grid))
    again, after = load_model(folder)
    grid = after.pixels(file)
    expected = grid / torch.tensor([2.0, 4.0, 8.0]).view(3, 1, 1) / 255
    torch.testing.assert_close(after(file), expected)
    torch.testing.assert_close(again.input(grid[None])[0], expected)
    assert not torch.allclose(before(file), expected)
    assert not torch.allclose(model(before(file)[None]), again(after(file)[None]))
