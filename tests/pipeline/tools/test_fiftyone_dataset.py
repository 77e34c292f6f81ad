"""What FiftyOne is given is what the artefacts say."""

import sys
from pathlib import Path

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
