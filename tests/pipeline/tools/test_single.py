from pathlib import Path

import pytest

from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.schemas.masks import SCHEMA
from pipeline.store import stated_digest
from pipeline.tools.single import open_single
from tests.conftest import edited


def test_an_artefact_is_known_by_what_it_says_not_by_its_name(own_artefacts: Project, tmp_path: Path) -> None:
    moved = own_artefacts.path("masks").rename(tmp_path / "mine.h5")
    with open_single(moved) as (kind, given):
        assert kind.name == "masks"
        assert given.file("masks").digest == stated_digest(moved)
    with open_single(own_artefacts.path("baselines")) as (kind, given):
        assert kind.name == "baselines"


def test_it_can_be_looked_at_when_it_does_not_fit_any_more(own_artefacts: Project) -> None:
    with edited(own_artefacts.path("images"), sealed=True) as file:
        file["label"][0] = 1 - file["label"][0]
    with pytest.raises(MacError, match="made from other images"), own_artefacts.open("masks"):
        pass
    with open_single(own_artefacts.path("masks")) as (kind, _):
        assert kind.name == "masks"


def test_what_is_none_or_another_one_is_refused(artefacts: Project, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no artefact")
    for path, message in (
        (tmp_path / "text.h5", "text.h5: is no MaC artefact, or damaged"),
        (tmp_path, "is no MaC artefact, or damaged"),
        (tmp_path / "nowhere.h5", "nowhere.h5: no such file or folder"),
    ):
        with pytest.raises(MacError, match=message), open_single(path):
            pass
    message = "holds 'images', expected masks; run 'mac masks'"
    with pytest.raises(MacError, match=message), open_single(artefacts.path("images"), "masks"):
        pass


def test_pictures_for_viewers_are_no_datasets(own_artefacts: Project) -> None:
    with edited(own_artefacts.path("masks"), sealed=True) as file:
        file["preview/row_0"] = [1, 2]
    with open_single(own_artefacts.path("masks")) as (_, given):
        masks = given.file("masks")
        assert set(masks) == {name for name in SCHEMA if name in masks}
    with open_single(own_artefacts.path("features")) as (_, given):
        assert "train/masked" in list(given.file("features"))
