"""What FiftyOne is given is what the artefacts say."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.results.pictures import as_rgb, input_pixels
from pipeline.tools.fiftyone_dataset import CORE, NEEDS, count, export, looks, sample


def test_every_image_is_there_with_all_that_is_known_of_it(artefacts: Project, tmp_path: Path) -> None:
    with artefacts.open(*NEEDS) as given:
        found = list(looks(given, tmp_path))
        images, masks = given.file("images"), given.file("masks")
        assert count(given) == len(found) == len(images["label"])
        assert {each.row for each in found} == set(range(len(found)))
        for each in found:
            pixels = as_rgb(input_pixels(images, np.array([each.row]), given.model("erm").spec))[0]
            assert np.array_equal(np.asarray(Image.open(each.file)), pixels)
            label, attribute = int(images["label"][each.row]), int(images["attribute"][each.row])
            assert each.label == given.groups.classes[label]
            assert each.group == f"{each.label}_{given.groups.attributes[attribute]}"
            assert (each.path, each.split) == (
                f"{each.row:02}.png",
                ("train", "val", "test")[images["split"][each.row]],
            )
            for name, answer in (("erm", each.erm), ("retrained", each.mac)):
                logits = given.model(name).head().logits(each.phi[None])[0, 0]
                assert answer.label == given.groups.classes[logits.argmax()]
                assert answer.confidence == pytest.approx(softmax(logits.astype(float)).max())
            right = (each.erm.label == each.label, each.mac.label == each.label)
            outcomes = {(True, True): "both right", (False, True): "mended", (True, False): "broken"}
            assert each.outcome == outcomes.get(right, "both wrong")
        trained = [each for each in found if each.split == "train"]
        for position, each in enumerate(trained):
            assert each.core is not None
            assert each.map is not None
            assert np.array_equal(np.asarray(Image.open(each.core)) == CORE, masks["mask"][position])
            cam, heat = masks["cam"][position], np.asarray(Image.open(each.map))
            assert heat.shape == masks["mask"].shape[1:]
            assert (heat.min(), heat.max()) == (0, 255)
            top, left = np.unravel_index(heat.argmax(), heat.shape)
            assert (top >= len(heat) // 2, left >= len(heat) // 2) == np.unravel_index(cam.argmax(), (2, 2))
        assert all(each.core and each.map for each in found if each.split == "val")
        assert not any(each.core or each.map for each in found if each.split == "test")


def test_without_the_package_it_says_how_to_get_it(
    artefacts: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(MacError) as raised:
        export(artefacts, tmp_path, "mac")
    assert str(raised.value).endswith("needs fiftyone: pip install 'mac-robust[fiftyone]'")
    assert not list(tmp_path.iterdir())


class Sample(dict[str, Any]):
    """In the place of FiftyOne's."""

    def __init__(self, filepath: str, tags: list[str]) -> None:
        super().__init__(filepath=filepath, tags=tags)


class Database(dict[str, "Kept"]):
    """In the place of FiftyOne's: datasets by name."""

    full = False


class Kept:
    """A dataset of it."""

    def __init__(self, database: Database, name: str) -> None:
        self.database, self.name, self.persistent = database, name, False
        self.default_mask_targets: dict[int, str] = {}
        self.default_classes: list[str] = []
        self.samples: list[Sample] = []
        database[name] = self

    def add_samples(self, samples: Iterator[Sample], num_samples: int) -> None:
        self.samples = list(samples)
        assert len(self.samples) == num_samples
        if self.database.full:
            raise OSError("no space")

    def delete(self) -> None:
        del self.database[self.name]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    """What FiftyOne keeps: a module of this name that has no more than what `mac fiftyone` uses."""
    found, module = Database(), ModuleType("fiftyone")
    of_its_own: dict[str, object] = {
        "dataset_exists": found.__contains__,
        "Dataset": lambda name: Kept(found, name),
        "Sample": Sample,
        **dict.fromkeys(("Classification", "Segmentation", "Heatmap"), SimpleNamespace),
    }
    module.__dict__.update(of_its_own)
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return found


def test_what_the_database_is_given(artefacts: Project, tmp_path: Path, database: Database) -> None:
    total = export(artefacts, tmp_path, "mac")
    kept = database["mac"]
    with artefacts.open(*NEEDS) as given:
        found, classes = list(looks(given, tmp_path.resolve())), list(given.groups.classes)
    assert total == len(kept.samples) == len(found)
    assert (kept.persistent, kept.default_mask_targets) == (True, {CORE: "core"})
    assert kept.default_classes == classes
    for made, look in zip(kept.samples, found, strict=True):
        assert (made["filepath"], made["tags"]) == (str(look.file), [look.split])
        for field in ("row", "path", "split", "group", "outcome"):
            assert made[field] == getattr(look, field)
        assert np.array_equal(made["phi"], look.phi)
        assert made["ground_truth"].label == look.label
        for field, answer in (("erm", look.erm), ("mac", look.mac)):
            assert (made[field].label, made[field].confidence) == (answer.label, answer.confidence)
            assert np.array_equal(made[field].logits, answer.logits)
        assert ("core" in made, "map" in made) == (look.split != "test",) * 2
        if look.core and look.map:
            assert made["core"].mask_path == str(look.core)
            assert (made["map"].map_path, made["map"].range) == (str(look.map), [0, 255])


def test_a_dataset_that_is_there_stays_and_one_that_fails_goes(
    artefacts: Project, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Kept(database, "mac")
    with pytest.raises(MacError, match="mac: FiftyOne has a dataset of this name; choose another, or run"):
        export(artefacts, tmp_path, "mac")
    assert database == {"mac": there}
    database.full = True
    with pytest.raises(OSError, match="no space"):
        export(artefacts, tmp_path, "other")
    assert database == {"mac": there}

    def gone(_: str) -> bool:
        raise ConnectionError("no mongod")

    monkeypatch.setattr(sys.modules["fiftyone"], "dataset_exists", gone)
    with pytest.raises(MacError, match=r"FiftyOne has no database here \(no mongod\); start a MongoDB"):
        export(artefacts, tmp_path, "other")


@pytest.mark.filterwarnings("ignore")  # those of its own
def test_a_sample_has_it_as_fiftyone_shows_it(artefacts: Project, tmp_path: Path) -> None:
    fiftyone = pytest.importorskip("fiftyone", reason="FiftyOne is not installed here")
    with artefacts.open(*NEEDS) as given:
        look = next(looks(given, tmp_path))
    made = sample(fiftyone, look)
    assert (made.filepath, made.tags, made["group"]) == (str(look.file), ["train"], look.group)
    assert (made["erm"].label, made["erm"].confidence) == (look.erm.label, look.erm.confidence)
    assert (made["core"].mask_path, made["map"].map_path) == (str(look.core), str(look.map))
    assert np.array_equal(made["phi"], look.phi)


@pytest.mark.filterwarnings("ignore")
def test_the_dataset_opens(artefacts: Project, tmp_path: Path) -> None:
    fiftyone = pytest.importorskip("fiftyone", reason="FiftyOne is not installed here")
    try:
        fiftyone.list_datasets()
    except Exception:
        pytest.skip("FiftyOne has no database here")
    name = f"mac-test-{tmp_path.name}"
    try:
        total = export(artefacts, tmp_path, name)
        dataset = fiftyone.load_dataset(name)
        assert len(dataset) == total == dataset.exists("phi").count()
        assert len(dataset.match_tags("test")) == len(dataset.exists("core", False))
        with pytest.raises(MacError, match="has a dataset of this name"):
            export(artefacts, tmp_path, name)
    finally:
        fiftyone.delete_dataset(name)
