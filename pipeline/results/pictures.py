"""Pictures of a training image: what the mask keeps, what retraining sees."""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.method import interventions
from pipeline.method.masks import upsample
from pipeline.metrics import Groups
from pipeline.results import visual
from pipeline.results.coverage import input_grid
from pipeline.results.visual import Picture
from pipeline.store import Artefact


@dataclass(frozen=True)
class TrainingExample:
    """A training image and what becomes of it in draw 0 (paper Figure 1); pictures on the input grid."""

    row: int
    group: str
    target: str
    partner_group: str
    original: Picture
    heat: Picture
    core: Picture
    masked: Picture
    combined: Picture


def training_example(images: Artefact, masks: Artefact, features: Artefact, sample: int) -> TrainingExample:
    """The image at position `sample` of masks.h5."""
    rows, partner = masks["row"][:], int(features["train/partner"][0, sample])
    pair = [int(rows[sample]), int(rows[partner])]
    x_i, x_j = (input_grid(images, images["image"][row][None]).float() / 255 for row in pair)
    m_i, m_j = (torch.from_numpy(masks["mask"][k][None, None]).float() for k in (sample, partner))
    b = torch.from_numpy(features["train/fill"][0, sample]).view(1, 3, 1, 1)
    groups = Groups.of(images)
    described = groups.described(*(np.array([images[name][row] for row in pair]) for name in ("label", "attribute")))
    names = [described.names[g] for g in described.index]
    original = visual.to_picture(x_i[0].numpy())
    return TrainingExample(
        row=pair[0],
        group=names[0],
        target=groups.classes[int(masks["target"][sample])],
        partner_group=names[1],
        original=original,
        heat=visual.heat(upsample(torch.from_numpy(masks["cam"][sample][None]), m_i.shape[-1])[0].numpy()),
        core=visual.overlay(original, masks["mask"][sample]),
        masked=visual.to_picture(interventions.masked(x_i, m_i, b)[0].numpy()),
        combined=visual.to_picture(interventions.combined(x_i, m_i, x_j, m_j, b)[0].numpy()),
    )
