"""Pictures of the dataset's images, of their cores, and of the interventions on them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.method import interventions
from pipeline.method.masks import upsample
from pipeline.network.inputs import InputSpec, to_input_grid
from pipeline.project import Opened
from pipeline.results import visual
from pipeline.results.visual import RGB
from pipeline.store import Artefact


def input_pixels(images: Artefact, rows: NDArray[np.integer], spec: InputSpec) -> Tensor:
    """Rows of images.h5 on the input grid, (n, 3, S, S) uint8."""
    return to_input_grid(torch.from_numpy(images.rows("image", rows)), spec)


def as_rgb(pixels: Tensor) -> RGB:
    """(..., 3, H, W) uint8 to (..., H, W, 3)."""
    return np.asarray(pixels.movedim(-3, -1).numpy())


@dataclass(frozen=True)
class TrainingExample:
    """A training image with its map, core and interventions of draw 0 (paper Figure 1), on the input grid.

    Attributes:
        row: the row in images.h5.
        group, partner_group: the group of the image, and of its partner.
        target: the class that the map explains.
        map: the map as colours.
        core: the image; all but the core is dimmed.
        masked, combined: the two interventions.
    """

    row: int
    group: str
    target: str
    partner_group: str
    original: RGB
    map: RGB
    core: RGB
    masked: RGB
    combined: RGB


def training_example(given: Opened, position: int) -> TrainingExample:
    """The image at a position of masks.h5.

    Args:
        given: images, erm, masks and features.
    """
    images, masks, features = (given.file(name) for name in ("images", "masks", "features"))
    partner = int(features["train/partner"][0, position])
    rows = np.array([int(masks["row"][each]) for each in (position, partner)])
    x_i, x_j = input_pixels(images, rows, given.model("erm").spec).float().div(255).split(1)
    m_i, m_j = (torch.from_numpy(masks["mask"][each][None, None]).float() for each in (position, partner))
    fill = torch.from_numpy(features["train/fill"][0, position]).view(1, 3, 1, 1)
    described = given.groups.described(images.rows("label", rows), images.rows("attribute", rows))
    group, partner_group = (described.names[index] for index in described.index)
    original = visual.to_rgb(x_i[0].numpy())
    large = upsample(torch.from_numpy(masks["cam"][position][None]), m_i.shape[-1])[0]
    return TrainingExample(
        row=int(rows[0]),
        group=group,
        target=given.groups.classes[int(masks["target"][position])],
        partner_group=partner_group,
        original=original,
        map=visual.heat(large.numpy()),
        core=visual.overlay(original, masks["mask"][position]),
        masked=visual.to_rgb(interventions.masked(x_i, m_i, fill)[0].numpy()),
        combined=visual.to_rgb(interventions.combined(x_i, m_i, x_j, m_j, fill)[0].numpy()),
    )
