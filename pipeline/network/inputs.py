"""From stored pixels to the network's input, on the device: grid, normalisation, training augmentation.

All masks, foregrounds and interventions are on the *input grid*: the S × S pixels of `to_input_grid`.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.spec import Normalization


class InputSpec(Protocol):
    """How a stored image becomes the input grid. `ModelSpec` and `InputParams` have these attributes.

    Attributes:
        input_size: S, side of the input grid, pixels.
        to_input: `center_crop` takes the middle S × S pixels; `resize` scales the whole image.
    """

    @property
    def input_size(self) -> int: ...

    @property
    def to_input(self) -> Literal["center_crop", "resize"]: ...


def to_input_grid(images: Tensor, spec: InputSpec) -> Tensor:
    """Stored images to the input grid, still as bytes, so the result is exact and small.

    Images are scaled bilinearly with antialiasing; foregrounds take the nearest pixel.

    Args:
        images: (B, H, W, 3) uint8, or (B, H, W) bool for foregrounds.

    Returns:
        (B, 3, S, S) uint8, or (B, S, S) bool.
    """
    size = spec.input_size
    foreground = images.dtype == torch.bool
    pixels = images[:, None] if foreground else images.permute(0, 3, 1, 2)
    height, width = pixels.shape[-2:]
    if spec.to_input == "center_crop":
        top, left = (height - size) // 2, (width - size) // 2
        pixels = pixels[..., top : top + size, left : left + size]
    elif (height, width) != (size, size):
        if foreground:
            pixels = F.interpolate(pixels.to(torch.uint8), (size, size), mode="nearest-exact").bool()
        else:
            scaled = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
            pixels = scaled.round().clamp(0, 255).to(torch.uint8)
    return pixels[:, 0] if foreground else pixels


def normalize(pixels: Tensor, normalization: Normalization, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels to the trunk's input, channels-last; computed in float32.

    Args:
        pixels: (B, 3, H, W) uint8, or float32 in [0, 1].
        dtype: of the result.

    Returns:
        (B, 3, H, W).
    """
    # (B, H, W · 3): operations along a whole row are vectorised.
    rows = pixels.permute(0, 2, 3, 1).contiguous().flatten(2)
    mean = torch.tensor(normalization.mean, device=pixels.device).repeat(pixels.shape[3])
    std = torch.tensor(normalization.std, device=pixels.device).repeat(pixels.shape[3])
    values = rows.float().div_(255).sub_(mean) if rows.dtype == torch.uint8 else rows - mean
    return values.div_(std).to(dtype).view(*rows.shape[:2], -1, 3).permute(0, 3, 1, 2)


def random_resized_crop_and_flip(
    images: Tensor, size: int, scale: tuple[float, float], flip: bool, generator: torch.Generator
) -> Tensor:
    """Random resized crop and horizontal flip of a whole batch in one `grid_sample`.

    The boxes follow torchvision's RandomResizedCrop: the area is uniform in `scale`, the aspect ratio
    log-uniform in [3/4, 4/3], and the box is clipped to the image. They are drawn on the CPU, so a seed gives
    the same boxes on every device.

    Args:
        images: (B, H, W, 3) uint8, stored images.
        size: side of the result, pixels.
        scale: lowest and highest area of a box, as a share of the image.
        flip: whether to mirror an image with probability 1/2.
        generator: a CPU generator.

    Returns:
        (B, 3, size, size) float32 in [0, 1].
    """
    count, height, width = images.shape[:3]
    area = torch.empty(count).uniform_(*scale, generator=generator)
    ratio = torch.empty(count).uniform_(-1, 1, generator=generator).mul(torch.log(torch.tensor(4 / 3))).exp()
    place = torch.rand(2, count, generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    # Box sides w and h as fractions of the image's W and H: w·h = area, (w·W)/(h·H) = ratio.
    aspect = height / width
    box_width = (area * ratio * aspect).sqrt().clamp(max=1)
    box_height = (area / ratio / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.where(mirrored, -box_width, box_width)
    theta[:, 1, 1] = box_height
    theta[:, 0, 2] = (2 * place[0] - 1) * (1 - box_width)
    theta[:, 1, 2] = (2 * place[1] - 1) * (1 - box_height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False).to(images.device)
    pixels = images.permute(0, 3, 1, 2).float().div_(255)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
