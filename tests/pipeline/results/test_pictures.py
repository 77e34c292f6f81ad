import numpy as np
import torch
from PIL import Image

from pipeline.method import interventions
from pipeline.method.masks import upsample
from pipeline.project import Project
from pipeline.results import visual
from pipeline.results.pictures import as_rgb, input_pixels, training_example
from tests import made_up


def test_rows_on_the_input_grid(artefacts: Project) -> None:
    """The centre crop of the files themselves, in the order that is asked for."""
    rows = np.array([5, 2, 5])
    with artefacts.open("images") as given:
        pixels = as_rgb(input_pixels(given.file("images"), rows, made_up.SPEC))
    for row, found in zip(rows, pixels, strict=True):
        with Image.open(artefacts.data.parent / f"raw/{row:02}.png") as image:
            assert np.array_equal(found, np.asarray(image)[4:68, 4:68])


def test_what_retraining_sees_of_an_image(artefacts: Project) -> None:
    with artefacts.open("images", "erm", "masks", "features") as given:
        example = training_example(given, 3)
        images, masks, features = (given.file(name) for name in ("images", "masks", "features"))
        partner = int(features["train/partner"][0, 3])
        x_i, x_j = input_pixels(images, np.array([3, partner]), made_up.SPEC).float().div(255).split(1)
        m_i, m_j = (torch.from_numpy(masks["mask"][each][None, None]).float() for each in (3, partner))
        fill = torch.from_numpy(features["train/fill"][0, 3]).view(1, 3, 1, 1)
        cam = torch.from_numpy(masks["cam"][3][None])
        mask = masks["mask"][3]
        assert (
            example.partner_group
            == given.groups.names[images["label"][partner] * 2 + images["attribute"][partner]]
        )
    assert (example.row, example.group, example.target) == (3, "waterbird_water", "waterbird")
    assert np.array_equal(example.original, visual.to_rgb(x_i[0].numpy()))
    assert np.array_equal(example.map, visual.heat(upsample(cam, 64)[0].numpy()))
    assert np.array_equal(example.core, visual.overlay(example.original, mask))
    assert np.array_equal(example.masked, visual.to_rgb(interventions.masked(x_i, m_i, fill)[0].numpy()))
    combined = interventions.combined(x_i, m_i, x_j, m_j, fill)[0]
    assert np.array_equal(example.combined, visual.to_rgb(combined.numpy()))
