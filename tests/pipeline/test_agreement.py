"""Artefacts that are sealed, each possible by itself, and contradict each other."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.schemas import features
from pipeline.store import verified
from tests import cached
from tests.conftest import edited, restate


def forged(project: Project, name: str, change: Callable[[h5py.File], object]) -> None:
    """Change a file that says that it was made from nothing, so that no digest contradicts it."""
    with edited(project.path(name), sealed=True) as file:
        file.attrs["made_from"] = "{}"
        change(file)


def said_of(project: Project, *names: str) -> str:
    with pytest.raises(MacError) as error, project.open(*names):
        pass
    return str(error.value)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Made from nothing, all of them."""
    made = cached.write(tmp_path)
    for name in ("maps", "masks", "originals", "features"):
        forged(made, name, lambda file: None)
    restate(made.path("erm"), lambda about: about.update(made_from={}))
    return made


def test_as_they_are_they_agree(project: Project) -> None:
    with project.open("images", "erm", "maps", "masks", "originals", "features"):
        pass


def test_rows_and_classes_that_are_not_in_the_other_artefact(project: Project) -> None:
    forged(project, "masks", lambda file: file["row"].__setitem__(0, 230))
    assert "dataset 'row' has 230, expected 0 to 229 (images/row)" in said_of(project, "images", "masks")
    forged(project, "masks", lambda file: file["row"].__setitem__(0, 0))
    forged(project, "masks", lambda file: file["target"].__setitem__(3, 2))
    assert "dataset 'target' has 2, expected 0 to 1 (images/classes)" in said_of(project, "images", "masks")


def test_originals_in_another_order(project: Project) -> None:
    """Their rows, labels and features fit; but positions of rows are looked up in rising rows."""

    def turn(file: h5py.File) -> None:
        for name in ("row", "label", "attribute", "original"):
            file[f"train/{name}"][...] = file[f"train/{name}"][:][::-1]

    forged(project, "originals", turn)
    verified.note_of(project.path("originals")).unlink()
    for names in (["originals"], ["images", "masks", "originals"]):
        said = said_of(project, *names)
        assert "originals.h5: dataset 'train/row' has numbers that are not in rising order; run 'mac" in said


def test_labels_that_are_others(project: Project) -> None:
    forged(project, "features", lambda file: file["test/label"].__setitem__(0, 1 - file["test/label"][0]))
    assert "features.h5: its rows of test/ are not those of images.h5" in said_of(
        project, "images", "features"
    )


@pytest.mark.parametrize("name", ["originals", "features"])
def test_rows_that_are_others(project: Project, name: str) -> None:
    forged(project, name, lambda file: file["val/row"].__setitem__(0, 0))
    assert f"{name}.h5: its rows of val/ are not those of images.h5" in said_of(project, "images", name)


def test_images_of_another_split(project: Project) -> None:
    forged(project, "images", lambda file: file["split"].__setitem__(0, 2))
    for name in ("maps", "masks"):
        assert f"{name}.h5: has rows in row that are not of train" in said_of(project, "images", name)


def test_names_and_sizes_that_are_others(project: Project) -> None:
    forged(project, "features", lambda file: file.attrs.update(classes=json.dumps(["waterbird", "landbird"])))
    assert "features.h5: has other classes than images" in said_of(project, "images", "features")
    restate(project.path("erm"), lambda about: about["spec"].update(input_size=2))
    assert "masks.h5: does not belong to the other artefacts: erm/input_size 2" in said_of(
        project, "erm", "masks"
    )


def test_features_of_another_width(project: Project) -> None:
    def narrow(file: h5py.File) -> None:
        wide = [name for name, field in features.SCHEMA.items() if "feature" in field.dims]
        for name in wide:
            values: np.ndarray = file[name][..., :-1]
            del file[name]
            file[name] = values

    forged(project, "features", narrow)
    assert "features.h5: does not belong to the other artefacts: erm/feature 12" in said_of(
        project, "erm", "features"
    )
