import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pipeline import graph
from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.results.diagnosis_words import sentence
from pipeline.results.evaluation import verdict_of
from pipeline.results.pictures import training_example
from pipeline.steps.evaluate import whole
from pipeline.tools.inspection import as_dict, describe, picture
from tests.conftest import edited

EXPECTED = {
    "images.h5": (
        "stored_size: 72",
        "image            uint8    (row 36, height 72, width 72, channel 3): RGB at the stored size",
        "images                     train     val    test",
        "landbird_land                  4       2       3",
        "true masks: 35 of 36",
    ),
    "masks.h5": (
        "made from erm ",
        "top_k: ",
        "mask             bool     (position 16, height 64, width 64)",
        "preview/         0 pictures for HDF viewers",
        "Mask/FG   Mask/BG",
    ),
    "features.h5": ("made from masks ", "train/combined", "(draw 2, place 16, feature 1024)"),
    "erm": ("architecture: ", "head.weight: (2, 1024)", "worst_group", '"mean": [0.485, 0.456, 0.406]'),
    "retrained": ("made from features ", "solver: adam", '"head_seed": 1'),
    "baselines": ("made from features ", "dfr.weight: (3, 2, 1024)", "erm.weight: (1, 2, 1024)"),
    "baselines/metrics.json": ("DFR   ", "✓✓ validation, to train"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_artefact_can_be_described(artefacts: Project, name: str) -> None:
    output = describe(artefacts.data / name)
    for text in EXPECTED[name]:
        assert text in output


@pytest.mark.parametrize("name", EXPECTED)
def test_and_told_as_json(artefacts: Project, name: str) -> None:
    found = json.loads(json.dumps(as_dict(artefacts.data / name)))
    if name.endswith(".json"):
        assert found == json.loads((artefacts.data / name).read_text())
        return
    assert found["kind"] == name.removesuffix(".h5")
    assert len(found["digest"]) == 64
    if name.endswith(".h5"):
        with h5py.File(artefacts.data / name) as file:
            for dataset, about in found["datasets"].items():
                assert about["shape"] == list(file[dataset].shape)
                assert about["about"]
    else:
        assert found["spec"]["input_size"] == 64


def test_metrics_that_are_not_declared_are_not_shown(artefacts: Project, tmp_path: Path) -> None:
    folder = shutil.copytree(artefacts.path("erm"), tmp_path / "erm")
    said = {"epoch": 17, "val": {"raw_mean": 0.125, "groups": {"cat": 0.25}}, "notice": "call this number"}
    (folder / "metrics.json").write_text(json.dumps(said))
    text = describe(folder)
    assert all(each in text for each in ("17", "0.125", "cat", "0.25"))
    assert "call this number" not in text
    (folder / "metrics.json").write_text(json.dumps({**said, "val": {"raw_mean": "0.125"}}))
    with pytest.raises(MacError, match=r"metrics.json: damaged \(val"):
        describe(folder)


def test_metrics_of_evaluate(artefacts: Project, tmp_path: Path) -> None:
    with artefacts.open(*graph.stage("evaluate").needs) as given:
        metrics, _ = whole(given)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    text = describe(tmp_path / "metrics.json")
    assert text.startswith("On the worst group MaC is ")
    assert text.startswith(str(verdict_of(metrics)))
    assert "waterbird_water" in text
    assert sentence(metrics["diagnosis"]) in text
    assert as_dict(tmp_path / "metrics.json") == metrics
    damaged = metrics["diagnosis"] | {"convergence": metrics["diagnosis"]["convergence"] | {"images": 0}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"diagnosis": damaged}))
    with pytest.raises(MacError, match=r"ValueError: diagnosis.convergence.images: Input should be greater"):
        describe(tmp_path / "metrics.json")
    del metrics["diagnosis"], metrics["setting"], metrics["compared"]  # as an earlier version wrote it
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(
        MacError, match=r"metrics.json: does not state setting, diagnosis, compared; run 'mac evaluate'$"
    ):
        describe(tmp_path / "metrics.json")


def test_a_picture_of_one_row_shows_the_five_panels(artefacts: Project) -> None:
    found = np.asarray(picture(artefacts.path("masks"), 3))
    assert found.shape == (270, 5 * 248 + 8, 3)
    with artefacts.open("images", "erm", "masks", "features") as given:
        example = training_example(given, 3)
    panels = (example.original, example.map, example.core, example.masked, example.combined)
    for number, panel in enumerate(panels):
        large = Image.fromarray(panel).resize((240, 240), Image.Resampling.BICUBIC)
        left = 8 + number * 248
        np.testing.assert_array_equal(found[22:262, left : left + 240], np.asarray(large))


def test_what_cannot_be_inspected_is_one_line(artefacts: Project, tmp_path: Path) -> None:
    with pytest.raises(MacError, match="row 9999 has no mask; it holds 16 rows from 0 to 15"):
        picture(artefacts.path("masks"), 9999)
    with pytest.raises(MacError, match="holds 'images', expected masks"):
        picture(artefacts.path("images"), 0)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "text.json").write_text('{"methods": 3}')
    (tmp_path / "empty").mkdir()
    with h5py.File(tmp_path / "plain.h5", "w"):
        pass
    for name, message in (
        ("nowhere.h5", "nowhere.h5: no such file or folder"),
        ("nowhere.json", "nowhere.json: no such file"),
        ("other.json", "other.json: is no metrics.json of evaluate, baselines, ablation or study-run"),
        ("text.json", "text.json: is no metrics.json of evaluate, baselines, ablation or study-run"),
        ("list.json", "list.json: holds no JSON object"),
        ("empty", "empty: is no MaC artefact, or damaged"),
        ("plain.h5", "plain.h5: is no MaC artefact, or damaged"),
    ):
        for tell in (describe, as_dict):
            with pytest.raises(MacError, match=message):
                tell(tmp_path / name)


def test_masks_are_measured_by_the_images_and_the_erm_beside_them(own_artefacts: Project) -> None:
    masks = own_artefacts.path("masks")
    with edited(own_artefacts.path("images"), sealed=True) as file:
        file["image"][0] = 0
    with pytest.raises(MacError, match="was made from other images"):
        describe(masks)
    own_artefacts.path("images").unlink()
    assert f"coverage by group: needs {own_artefacts.path('images')}" in describe(masks)


def test_a_stale_artefact_can_be_looked_at(own_artefacts: Project) -> None:
    with edited(own_artefacts.path("masks"), sealed=True) as file:
        file["mask"][0] = False
    assert "train/combined" in describe(own_artefacts.path("features"))
