from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import store
from pipeline.method import interventions
from pipeline.network.inputs import to_input_grid
from pipeline.results import visual
from tests.conftest import Project, edited


@pytest.mark.parametrize("artefact", ["images.h5", "masks.h5", "features.h5", "erm", "retrained", "metrics.json", "baselines.json"])
def test_every_artefact_can_be_described(finished: Project, artefact: str) -> None:
    output = finished.succeed("inspect", str(finished.data / artefact)).output
    expected = {
        "images.h5": (
            "stored_size: 72",
            "image            uint8    (row 126, height 72",
            "landbird_land                 40       6       8",
            "true masks: 126 of 126",
        ),
        "masks.h5": ("made from erm ", "top_k: ", "mask             bool     (sample 70, height 64, width 64)", "Mask/FG   Mask/BG"),
        "features.h5": ("made from masks ", "train/combined", "(draw 2, train row 70, feature "),
        "erm": ("architecture: ", '"epochs": 2', "worst_group"),
        "retrained": ("made from features ", "solver: adam", "head_seed"),
        "metrics.json": ("worst group", "waterbird_water"),
        "baselines.json": ("Group DRO (last layer)", "✓✓ validation, to train"),
    }
    for text in expected[artefact]:
        assert text in output


def test_a_picture_of_one_row_shows_the_five_panels(finished: Project, tmp_path: Path) -> None:
    out = tmp_path / "row.png"
    finished.succeed("inspect", str(finished.data / "masks.h5"), "--image", "3", "--out", str(out))
    picture = np.asarray(Image.open(out))
    assert picture.shape == (270, 5 * 248 + 8, 3)
    with store.open_artefact(finished.data / "images.h5") as images, store.open_artefact(finished.data / "masks.h5") as masks:
        x = to_input_grid(torch.from_numpy(images["image"][3][None]), 64, "center_crop").float() / 255
        mask = torch.from_numpy(masks["mask"][3][None, None]).float()
        with store.open_artefact(finished.data / "features.h5") as cached:
            fill = torch.from_numpy(cached["train/fill"][0, 3]).view(1, 3, 1, 1)
    expected = Image.fromarray(visual.to_picture(interventions.masked(x, mask, fill)[0].numpy())).resize(
        (240, 240), Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(picture[22:262, 8 + 3 * 248 : 248 + 3 * 248], np.asarray(expected))


def test_what_cannot_be_inspected_is_one_line(project: Project, tmp_path: Path) -> None:
    masks = str(project.data / "masks.h5")
    assert "row 9999 has no mask; it holds 70 rows from 0 to 69" in project.fail(
        "inspect", masks, "--image", "9999", "--out", str(tmp_path / "x.png")
    )
    (tmp_path / "file").touch()
    assert "cannot be written" in project.fail("inspect", masks, "--image", "0", "--out", str(tmp_path / "file" / "x.png"))
    assert "holds 'images', expected masks" in project.fail(
        "inspect", str(project.data / "images.h5"), "--image", "0", "--out", str(tmp_path / "x.png")
    )
    assert "no such file" in project.fail("inspect", "nowhere.h5")
    assert project.run("inspect", masks, "--image", "0").exit_code == 2
    (tmp_path / "other.json").write_text("{}")
    assert "is neither a metrics.json nor a baselines.json" in project.fail("inspect", str(tmp_path / "other.json"))
    (tmp_path / "empty").mkdir()
    assert "model.json: no such file" in project.fail("inspect", str(tmp_path / "empty"))
    with h5py.File(tmp_path / "plain.h5", "w"):
        pass
    assert "is no MaC artefact, or damaged" in project.fail("inspect", str(tmp_path / "plain.h5"))
    assert not (tmp_path / "x.png").exists()


def test_masks_of_other_images_are_refused(project: Project) -> None:
    with edited(project.data / "images.h5", sealed=True) as file:
        file["channel_mean"][0] = 0
    assert "was made from other images" in project.fail("inspect", str(project.data / "masks.h5"))
    (project.data / "images.h5").unlink()
    assert "coverage by group: needs" in project.succeed("inspect", str(project.data / "masks.h5")).output


def test_colours_span_the_map_and_the_outline_surrounds_the_core() -> None:
    scores = np.array([[0.0, 1.0], [0.5, -1.0]])
    picture = visual.heat(scores)
    assert picture[1, 1].tolist() == [0, 0, 4]
    assert picture[0, 1].tolist() == [252, 255, 164]
    assert (visual.heat(np.ones((2, 2))) == (0, 0, 4)).all()
    image = np.full((5, 5, 3), 200, np.uint8)
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    shown = visual.overlay(image, mask)
    assert shown[2, 2].tolist() == [200, 200, 200]
    assert shown[1, 1].tolist() == [255, 220, 0]
    assert shown[0, 0].tolist() == [100, 100, 100]
