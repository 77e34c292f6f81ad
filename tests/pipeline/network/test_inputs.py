import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from pipeline.network.inputs import normalize, random_resized_crop_and_flip, to_input_grid
from pipeline.params.inputs import InputParams, ToInput
from pipeline.spec import IMAGENET


def spec(size: int, how: ToInput) -> InputParams:
    return InputParams(input_size=size, to_input=how)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8))


def test_center_crop_equals_torchvision(images: torch.Tensor) -> None:
    expected = v2.CenterCrop(32)(images.permute(0, 3, 1, 2))
    assert torch.equal(to_input_grid(images, spec(32, "center_crop")), expected)


def test_resize_equals_torchvision_to_a_grey_level(images: torch.Tensor) -> None:
    expected = v2.Resize((56, 56), antialias=True)(images.permute(0, 3, 1, 2))
    difference = to_input_grid(images, spec(56, "resize")).int() - expected.int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(("how", "size"), [("center_crop", 32), ("resize", 80)])
def test_a_foreground_goes_through_the_same_geometry(how: ToInput, size: int) -> None:
    box = torch.zeros(1, 40, 40, dtype=torch.bool)
    box[0, 10:30, 14:22] = True
    picture = box[..., None].expand(-1, -1, -1, 3).to(torch.uint8) * 255
    as_image = to_input_grid(picture, spec(size, how))[0, 0] > 127
    assert torch.equal(to_input_grid(box, spec(size, how))[0], as_image)


def test_normalize_equals_torchvision(images: torch.Tensor) -> None:
    pixels = images.permute(0, 3, 1, 2)
    steps = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET.mean, IMAGENET.std)]
    expected = v2.Compose(steps)(pixels)
    assert torch.allclose(normalize(pixels, IMAGENET), expected, atol=1e-6)
    assert torch.allclose(normalize(pixels.float() / 255, IMAGENET), expected, atol=1e-6)
    assert normalize(pixels, IMAGENET, torch.bfloat16).dtype == torch.bfloat16


def test_augmentation_without_freedom_is_a_resize(images: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    whole[:, :, 20:] = 255
    out = random_resized_crop_and_flip(whole, 40, (1.0, 1.0), False, generator)
    # A box of the whole area has no room to move; only its aspect ratio is clipped to the image.
    assert out.shape == (1, 3, 40, 40)
    assert out[0, 0, :, 0].max() == 0
    assert out[0, 0, :, -1].min() == 1


def test_augmentation_flips_half_the_images_and_keeps_the_area_in_scale() -> None:
    size = 64
    ramp = torch.arange(size, dtype=torch.uint8).view(1, 1, size, 1).expand(400, size, size, 3) * 3
    out = random_resized_crop_and_flip(ramp, size, (0.7, 1.0), True, torch.Generator().manual_seed(1))[:, 0]
    # Source pixels for each output pixel: the width of the box as a share of the image's.
    slope = (out[:, 0, -1] - out[:, 0, 0]) * 255 / 3 / (size - 1)
    assert 0.4 < (slope < 0).float().mean() < 0.6
    assert slope.abs().min() > np.sqrt(0.7 * 3 / 4) - 0.03
    assert slope.abs().max() <= 1.01


def test_augmentation_is_a_function_of_the_generator(images: torch.Tensor) -> None:
    def augmented() -> torch.Tensor:
        return random_resized_crop_and_flip(images, 32, (0.7, 1), True, torch.Generator().manual_seed(5))

    assert torch.equal(augmented(), augmented())
