"""The one door: artefacts are opened together or not at all."""

import json
import pickle
import shutil
from pathlib import Path

import h5py
import pytest

from pipeline import graph
from pipeline import project as artefacts
from pipeline.errors import MacError
from tests import made_up
from tests.conftest import Project, edited, restate


def test_what_was_opened_is_there_and_nothing_else(finished: Project) -> None:
    with finished.open("images", "erm", "sweep") as given:
        assert given.file("images")["label"].shape == (126,)
        assert given.model("erm").spec.classes == ("landbird", "waterbird")
        assert given.table("sweep").values["made_from"]
        assert "features" not in given
        with pytest.raises(KeyError):
            given.file("features")
        assert given.digests("erm") == {"erm": given.model("erm").digest}


def test_the_training_split_is_grouped_from_all_its_images(finished: Project) -> None:
    with finished.open("images") as given:
        assert given.grouping("train").count.tolist() == [40, 6, 4, 20]
    with finished.open("features") as given:
        assert given.grouping("test").count.tolist() == [8, 8, 8, 8]


def test_an_artefact_that_does_not_belong_to_the_others_is_refused_opened_or_not(project: Project) -> None:
    project.set(saliency__top_k=0.1)
    project.succeed("masks")
    message = "features.h5: was made from other masks .* run 'mac features' again"
    with pytest.raises(MacError, match=message), project.open("masks", "features"):
        pass
    with pytest.raises(MacError, match=message), project.open("features", "erm"):
        pass
    (project.data / "masks.h5").unlink()
    with project.open("features", "erm"):  # nothing is there that it does not fit
        pass


def test_a_reference_opens_the_same_artefacts_in_another_process_or_none(project: Project) -> None:
    with project.open("images", "erm") as given:
        reference = pickle.loads(pickle.dumps(given.reference("images", "erm")))
    with reference.open() as again:
        assert again.digests("images", "erm") == reference.digests
    project.set(train__seed=1)
    project.succeed("train")
    with pytest.raises(MacError, match="erm: was replaced while it was in use"), reference.open():
        pass


def test_artefacts_may_lie_elsewhere(project: Project, tmp_path: Path) -> None:
    shutil.move(project.data / "masks.h5", tmp_path / "mine.h5")
    with pytest.raises(MacError, match=r"masks.h5: no such file; run 'mac masks'"), project.open("masks"):
        pass
    with graph.project(project.data, masks=tmp_path / "mine.h5").open("masks", "features") as given:
        assert given.file("masks").path == tmp_path / "mine.h5"


@pytest.mark.parametrize("name", ["images.h5", "masks.h5", "erm", "retrained"])
def test_a_file_says_what_kind_it_is(finished: Project, name: str) -> None:
    assert graph.project(finished.data).kind_of(finished.data / name).path == name


def test_what_is_no_artefact_has_no_kind(finished: Project, tmp_path: Path) -> None:
    project = graph.project(finished.data)
    for path in (finished.params_file, tmp_path):
        with pytest.raises(MacError, match="is no MaC artefact, or damaged"):
            project.kind_of(path)
    with pytest.raises(MacError, match="no such file or folder"):
        project.kind_of(tmp_path / "nothing")


def test_a_changed_normalization_makes_another_model(own_artefacts: artefacts.Project) -> None:
    """What was made with the old one does not belong to it."""
    restate(own_artefacts.path("erm"), lambda about: about["spec"]["normalization"].update(mean=[0.5] * 3))
    message = "masks.h5: was made from other erm .* run 'mac masks' again"
    with pytest.raises(MacError, match=message), own_artefacts.open("images", "masks"):
        pass


@pytest.mark.parametrize("made_from", [None, [], {"images": 3}, "images"])
def test_a_table_that_does_not_say_what_it_was_made_from(
    own_artefacts: artefacts.Project, made_from: object
) -> None:
    file = own_artefacts.path("sweep") / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "made_from": made_from}))
    with (
        pytest.raises(MacError, match=r"sweep/metrics.json: damaged .*; run 'mac sweep'"),
        own_artefacts.open("sweep"),
    ):
        pass


def test_a_table_has_a_digest_that_others_can_be_made_from(own_artefacts: artefacts.Project) -> None:
    with own_artefacts.open("sweep") as given:
        before = given.digests("sweep")
    file = own_artefacts.path("sweep") / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "alpha": 7}))
    with own_artefacts.open("sweep") as given:
        assert given.digests("sweep") != before
    made_up.write_compared(own_artefacts)
    file = own_artefacts.path("ablation") / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "made_from": before}))
    message = "ablation: was made from other sweep .* run 'mac ablation' again"
    for names in (("ablation",), ("sweep", "ablation")):
        with pytest.raises(MacError, match=message), own_artefacts.open(*names):
            pass


def test_a_dataset_that_lies_in_another_file_is_refused(
    own_artefacts: artefacts.Project, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other, edited(own_artefacts.path("masks")) as masks:
        other["row"] = masks["row"][:]
        del masks["row"]
        masks["row"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "row")
    message = r"masks.h5: dataset 'row' is in another file, or behind a link; run 'mac masks'"
    with pytest.raises(MacError, match=message), own_artefacts.open("masks"):
        pass


def test_a_damaged_file_is_told_as_what_it_should_be(own_artefacts: artefacts.Project) -> None:
    path = own_artefacts.path("masks")
    path.write_bytes(path.read_bytes()[:-100])
    assert own_artefacts.kind_of(path).name == "masks"
    with (
        pytest.raises(MacError, match=r"truncated or damaged, .*; run 'mac masks'"),
        own_artefacts.open("masks"),
    ):
        pass
