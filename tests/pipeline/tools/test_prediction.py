"""Predictions are what the cached features and the heads say."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from pipeline import store
from pipeline.errors import MacError
from pipeline.method import gradient_maps
from pipeline.project import Project
from pipeline.results.choice import NOT_RETRAINED
from pipeline.store import SPLITS, FittedHeads
from pipeline.tools import prediction
from pipeline.tools.heads import artefact_of, named_head
from pipeline.tools.prediction import Pair, listed, predict
from tests import made_up
from tests.conftest import restate

CPU = torch.device("cpu")


def files_of(project: Project) -> list[Path]:
    """All images, in the order of images.h5."""
    return listed([str(project.data.parent / "raw")])


def expected(project: Project, other: str) -> NDArray[np.float32]:
    """What ERM and another head say of all images by features.h5, (N, 2, classes)."""
    with project.open("features", "erm", artefact_of(other)) as given:
        phi = np.concatenate([given.file("features")[f"{split}/original"][:] for split in SPLITS])
        logits = [named_head(given, name).head.logits(phi)[0] for name in ("erm", other)]
    return np.asarray(softmax(np.stack(logits, 1), -1))


@pytest.mark.parametrize("other", ["mac", "dfr"])
def test_they_are_what_the_cached_features_say(artefacts: Project, other: str) -> None:
    pair = Pair.load(artefacts, other, CPU)
    found = list(predict(pair, files_of(artefacts)))
    probability = np.stack([each.probability for each in found if each.probability is not None])
    np.testing.assert_allclose(probability, expected(artefacts, other), atol=1e-4)
    assert [each.path for each in found] == files_of(artefacts)
    row = found[0].as_row(pair)
    assert list(row) == ["path", "erm", other]
    assert row["erm"]["class"] == pair.classes[int(probability[0, 0].argmax())]
    assert list(row[other]["probability"].values()) == pytest.approx(probability[0, 1].tolist())


def test_files_that_cannot_be_read_are_told_in_their_place(
    artefacts: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        prediction.device, "forward_batch", lambda _on: 2
    )  # so that there are several batches
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    files = files_of(artefacts)[:5]
    files.insert(3, tmp_path / "broken.jpg")
    pair = Pair.load(artefacts, "mac", CPU)
    found = list(predict(pair, files))
    assert [each.path for each in found] == files
    assert [each.probability is None for each in found] == [False, False, False, True, False, False]
    assert "broken.jpg: cannot be read as an image" in found[3].error
    assert found[3].as_row(pair) == {"path": str(files[3]), "error": found[3].error}
    empty = dict.fromkeys(
        ["erm", "mac", "erm: landbird", "erm: waterbird", "mac: landbird", "mac: waterbird"], ""
    )
    assert found[3].as_cells(pair) == {"path": str(files[3]), **empty, "error": found[3].error}
    assert list(found[0].as_cells(pair)) == list(found[3].as_cells(pair))
    probability = np.stack([each.probability for each in found if each.probability is not None])
    np.testing.assert_allclose(probability, expected(artefacts, "mac")[:5], atol=1e-4)


def test_a_head_that_is_erm_s_own_is_said(own_artefacts: Project) -> None:
    assert Pair.load(own_artefacts, "mac", CPU).note == ""
    made_up.prefer_erm(own_artefacts)
    pair = Pair.load(own_artefacts, "mac", CPU)
    assert pair.note == f"MaC: {NOT_RETRAINED}"
    (found,) = predict(pair, files_of(own_artefacts)[:1])
    assert found.probability is not None
    np.testing.assert_array_equal(*found.probability)


def test_the_normalisation_is_the_one_in_model_json(own_artefacts: Project) -> None:
    files = files_of(own_artefacts)[:2]
    before = [each.probability for each in predict(Pair.load(own_artefacts, "mac", CPU), files)]
    shifted = {"mean": [0.985, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    restate(own_artefacts.path("erm"), lambda about: about["spec"].update(normalization=shifted))
    with pytest.raises(MacError, match="retrained: was made from other erm"):
        Pair.load(own_artefacts, "mac", CPU)
    with own_artefacts.open("erm") as given:
        digest = given.model("erm").digest
    restate(own_artefacts.path("retrained"), lambda about: about["made_from"].update(erm=digest))
    after = [each.probability for each in predict(Pair.load(own_artefacts, "mac", CPU), files)]
    for one, other in zip(before, after, strict=True):
        assert one is not None
        assert other is not None
        assert np.abs(one - other).max() > 1e-3


def test_maps_of_both_heads(artefacts: Project) -> None:
    pair = Pair.load(artefacts, "dfr", CPU)
    state = pair.state(torch.stack([pair.transform.pixels(file) for file in files_of(artefacts)[:2]]))
    maps = pair.maps(state, 1)
    for each, head in zip(maps, pair.heads, strict=True):
        weight = torch.from_numpy(head.head.weight[0])
        torch.testing.assert_close(
            each, gradient_maps.closed_form(state, weight, torch.tensor([1, 1]), "xgradcam")
        )


def test_the_artefacts_of_a_pair_belong_together(own_artefacts: Project) -> None:
    with pytest.raises(MacError, match="erm: is one of the two heads already; name another method"):
        Pair.load(own_artefacts, "erm", CPU)
    with pytest.raises(MacError, match="cow: no method has this name"):
        Pair.load(own_artefacts, "cow", CPU)
    restate(own_artefacts.path("retrained"), lambda about: about["made_from"].update(erm="0" * 64))
    with pytest.raises(MacError, match="retrained: was made from other erm"):
        Pair.load(own_artefacts, "mac", CPU)
    (own_artefacts.path("retrained") / "model.json").unlink()
    with pytest.raises(MacError, match="model.json: no such file; run 'mac retrain'"):
        Pair.load(own_artefacts, "mac", CPU)


def test_files_folders_and_patterns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.jpg", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    both = [tmp_path / "a.png", tmp_path / "b.jpg"]
    assert listed([str(tmp_path)]) == both
    assert caplog.messages == [f"{tmp_path}: not used: 1 .txt (. 1)"]
    assert listed([str(tmp_path / "b.jpg"), str(tmp_path / "*.*g")]) == both[::-1]
    for path, message in (
        ("nowhere.jpg", "nowhere.jpg: no such file or folder, and no pattern that finds one"),
        (str(tmp_path / "empty"), "empty: no image file in this folder"),
    ):
        with pytest.raises(MacError, match=message):
            listed([path])


def test_what_is_no_image_file_is_told_and_does_not_hang(artefacts: Project, tmp_path: Path) -> None:
    good = files_of(artefacts)[0]
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    unreadable = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")
    shutil.copy(good, unreadable)
    odd = [tmp_path / name for name in ("-x.png", "a\nb\t'\".png", "=1+1.png", "[1].png", "x" * 240 + ".png")]
    for file in odd:
        shutil.copy(good, file)
    names = [tmp_path / "pipe.png", tmp_path / "loop.png", tmp_path / "folder.png", Path("/dev/zero")]
    pair = Pair.load(artefacts, "mac", CPU)
    found = list(predict(pair, [*names, *listed([unreadable, *map(str, odd)])]))
    reasons = [
        "is a named pipe",
        "Too many levels",
        "is a folder",
        "is a device",
        "is not UTF-8 text; rename",
    ]
    for each, reason in zip(found, reasons, strict=False):
        assert each.probability is None
        assert reason in each.error
        assert each.error.isprintable()
    assert [each.path for each in found[5:]] == odd
    assert all(each.probability is not None for each in found[5:])
    assert r"a\udcff.png" in found[4].error
    store.write_csv(tmp_path / "out.csv", [each.as_cells(pair) for each in found])
    written = [row["path"] for row in store.read_csv(tmp_path / "out.csv", "")]
    assert written[4:] == [rf"{tmp_path}/a\udcff.png", *map(str, odd)]
    with pytest.raises(MacError, match="cannot be read .File name too long"):
        listed(["x" * 300])


def test_logits_that_are_not_finite_are_no_answer(artefacts: Project) -> None:
    pair = Pair.load(artefacts, "mac", CPU)
    bad = replace(
        pair.heads[1], head=FittedHeads(pair.heads[1].head.weight * np.nan, pair.heads[1].head.bias)
    )
    with pytest.raises(MacError, match=r"MaC: its logits are NaN or infinite; train it again"):
        list(predict(replace(pair, heads=(pair.heads[0], bad)), files_of(artefacts)))
