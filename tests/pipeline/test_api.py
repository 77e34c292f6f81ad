"""`import pipeline` for notebooks: every example in its documentation runs."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline import api
from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.store import Pictures
from pipeline.tools import model
from tests.pipeline.steps import untrained


def test_the_examples_run_as_they_stand(artefacts: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(artefacts.data.parent)
    for module in (api, model):
        found = doctest.testmod(module)
        assert found.attempted >= 4
        assert found.failed == 0


def test_arrays_are_read_when_they_are_asked_for(artefacts: Project) -> None:
    with pipeline.open_features(artefacts.path("features")) as found, artefacts.open("features") as given:
        features = given.file("features")
        assert (found.digest, found.classes) == (features.digest, ["landbird", "waterbird"])
        assert set(found.made_from) == {"images", "erm", "originals", "masks"}
        assert len(found) == len(list(found))
        for name, array in found.items():
            assert array.shape == features[name].shape
            assert (array[:1].compute() == features[name][:1]).all()


def test_of_encoded_images_few_are_decoded_for_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = untrained.write_project(tmp_path, encoded=True).data
    decoded: list[int] = []
    rows = Pictures.rows
    monkeypatch.setattr(Pictures, "rows", lambda self, of: decoded.append(len(of)) or rows(self, of))
    monkeypatch.setattr(api, "DECODED", 10 * 72 * 72 * 3)
    with pipeline.open_images(data / "images.h5") as images:
        assert "encoded/bytes" not in images
        whole = images["image"].compute()
        assert sum(decoded) == len(whole) == len(images["label"])
        assert max(decoded) == 10
        decoded.clear()
        assert (images["image"][[1, 3]].compute() == whole[[1, 3]]).all()
        assert sum(decoded) <= 10


def test_tables_are_rows_for_pandas(artefacts: Project) -> None:
    rows = pipeline.images_table(artefacts.path("images"))
    assert len(rows) == 36
    assert rows[1] == {
        "row": 1, "path": "01.png", "split": "train", "class": "landbird", "group": "landbird_water"
    }  # fmt: skip
    assert rows[-1]["split"] == "test"
    assert len(pipeline.masks_table(artefacts.path("masks"))) == 16


def test_another_artefact_is_refused(artefacts: Project) -> None:
    with pytest.raises(MacError, match="holds 'images', expected masks"):
        pipeline.open_masks(artefacts.path("images"))


def test_all_of_it_is_there_after_import_pipeline_and_costs_nothing_before() -> None:
    assert set(api.__all__) == pipeline._API
    for name in api.__all__:
        assert getattr(pipeline, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'open_nothing'"):
        pipeline.open_nothing  # noqa: B018
    program = "import sys, pipeline; print('torch' in sys.modules, pipeline.load_model.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "load_model"]
