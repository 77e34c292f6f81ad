import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.errors import MacError
from pipeline.spec import ModelSpec, Normalization
from tests.conftest import restate

SPEC = ModelSpec(
    architecture="x",
    classes=("cat", "dog"),
    attributes=(),
    stored_size=40,
    to_stored="squash",
    input_size=32,
    to_input="resize",
    normalization=Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
)
REMEDY = "run 'mac train'"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = {"head.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
    with store.create_folder(tmp_path / "erm") as folder:
        store.write_model(folder, "erm", tensors, SPEC, {"k": 1}, {"images": "a"})
    return tmp_path / "erm"


def test_a_model_folder_can_be_read_back(model: Path) -> None:
    folder = store.open_model(model, "erm", REMEDY)
    assert folder.spec == SPEC
    assert (folder.provenance.params, folder.provenance.made_from) == ({"k": 1}, {"images": "a"})
    assert (folder.head().weight.shape, folder.head().bias.shape) == ((1, 2, 3), (1, 2))
    assert sorted(folder.read()) == ["head.bias", "head.weight"]
    assert store.stated_model(model) == ("erm", folder.digest)
    assert store.stated_model(model / "none") == (None, None)


def test_further_tensors_are_part_of_it(tmp_path: Path) -> None:
    heads = {"weight": np.arange(12, dtype=np.float32).reshape(2, 2, 3), "bias": np.ones((2, 2), np.float32)}
    with store.create_folder(tmp_path / "retrained") as folder:
        store.write_model(folder, "retrained", {"x": np.zeros(1)}, SPEC, {}, {}, head=heads)
    found = store.open_model(tmp_path / "retrained", "retrained", REMEDY).heads()
    assert len(found) == 2
    assert found[1].weight.tolist() == heads["weight"][1:].tolist()
    features = np.ones((5, 3), np.float32)
    logits = found.logits(features)
    assert logits.shape == (2, 5, 2)
    np.testing.assert_array_equal(logits[1], features @ heads["weight"][1].T + heads["bias"][1])
    os.truncate(tmp_path / "retrained/head.safetensors", 20)
    with pytest.raises(MacError, match="head.safetensors: truncated or changed"):
        store.open_model(tmp_path / "retrained", "retrained", REMEDY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalization", {"mean": [0, 0, 0], "std": [1, 0, 1]}),
        ("normalization", {"mean": [0, 0], "std": [1, 1, 1]}),
        ("normalization", None),
        ("classes", None),
        ("more", 1),
    ],
)
def test_a_model_whose_spec_says_what_it_should_not(model: Path, key: str, value: object) -> None:
    restate(model, lambda about: about["spec"].update({key: value}))
    with pytest.raises(MacError, match=rf"model.json: damaged .*{key}.*; run 'mac train'"):
        store.open_model(model, "erm", REMEDY)


def test_a_model_that_was_replaced_while_it_was_in_use(model: Path) -> None:
    digest = store.open_model(model, "erm", REMEDY).digest
    store.open_model(model, "erm", REMEDY, digest)
    with pytest.raises(MacError, match="erm: was replaced while it was in use"):
        store.open_model(model, "erm", REMEDY, "another")


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_a_truncated_model(model: Path, file: str) -> None:
    os.truncate(model / file, (model / file).stat().st_size // 2)
    with pytest.raises(MacError, match=rf"{file}: (is not JSON|truncated).*run 'mac train'"):
        store.open_model(model, "erm", REMEDY)


def test_a_model_whose_description_leaves_the_tensors_out(model: Path) -> None:
    restate(model, lambda about: about["files"].clear())
    with pytest.raises(MacError, match=r"model.json: damaged .*model.safetensors.*run 'mac train'"):
        store.open_model(model, "erm", REMEDY)


def test_a_model_that_is_missing_or_of_another_kind(model: Path) -> None:
    with pytest.raises(MacError, match="holds 'erm' version 2, expected 'retrained'"):
        store.open_model(model, "retrained", REMEDY)
    shutil.rmtree(model)
    with pytest.raises(MacError, match=r"no such file; run 'mac train'"):
        store.open_model(model, "erm", REMEDY)


def test_a_folder_is_replaced_whole_or_not_at_all(model: Path) -> None:
    with pytest.raises(RuntimeError), store.create_folder(model) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "model.safetensors"]
    with store.create_folder(model) as folder:
        (folder / "new").write_text("")
    assert [p.name for p in model.iterdir()] == ["new"]
    assert [p.name for p in model.parent.iterdir()] == ["erm"]
