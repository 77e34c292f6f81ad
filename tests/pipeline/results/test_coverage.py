import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.network.inputs import to_input_grid
from pipeline.project import Project
from pipeline.results.coverage import by_group, shares
from tests import made_up


def test_every_image_against_a_count(artefacts: Project) -> None:
    with artefacts.open("images", "masks") as given:
        images, masks = given.file("images"), given.file("masks")
        found = shares(images, masks, made_up.SPEC)
        for position, row in enumerate(masks["row"][:]):
            if row == 1:  # its true mask is not known
                assert np.isnan(found[:, position]).all()
                continue
            stored = torch.from_numpy(images["foreground"][row][None])
            foreground = to_input_grid(stored, made_up.SPEC)[0].numpy()
            mask, cam = masks["mask"][position], torch.from_numpy(masks["cam"][position])[None, None]
            heights = F.interpolate(cam, (64, 64), mode="bilinear", align_corners=False)[0, 0].numpy().clip(0)
            heights = heights / heights.max() if heights.max() > 0 else heights
            counted = [heights[foreground].mean(), heights[~foreground].mean()]
            counted += [mask[foreground].mean(), mask[~foreground].mean()]
            assert found[:, position] == pytest.approx(counted, rel=1e-5)


def test_a_group_is_the_mean_of_its_images_that_are_known(artefacts: Project) -> None:
    with artefacts.open("images", "masks") as given:
        images, masks = given.file("images"), given.file("masks")
        found = shares(images, masks, made_up.SPEC)
        table = by_group(images, masks, made_up.SPEC)
        assert [row.group for row in table] == [
            "landbird_land", "landbird_water", "waterbird_land", "waterbird_water"
        ]  # fmt: skip
        assert [row.n for row in table] == [4, 3, 4, 4]
        for group, row in enumerate(table):
            label, attribute = divmod(group, 2)
            of_group = (images["label"][:16] == label) & (images["attribute"][:16] == attribute)
            expected = np.nanmean(found[:, of_group], 1)
            assert (row.map_fg, row.map_bg, row.mask_fg, row.mask_bg) == pytest.approx(expected)


def test_a_dataset_without_true_masks_has_nothing_to_count(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = made_up.write(tmp_path_factory.mktemp("without"), foregrounds=False)
    with project.open("images", "masks") as given:
        table = by_group(given.file("images"), given.file("masks"), made_up.SPEC)
    assert [row.n for row in table] == [0, 0, 0, 0]
    assert np.isnan(table[0].mask_fg)
