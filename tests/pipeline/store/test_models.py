import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import graph, store
from pipeline.errors import MacError
from pipeline.schemas.models import fields_of
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


@pytest.mark.parametrize("white", ["auto", 4095.0, 2.0**32])
def test_a_range_is_read_back_and_models_without_one_have_auto(tmp_path: Path, white: float) -> None:
    spec = replace(SPEC, range=white)
    with store.create_folder(tmp_path / "erm") as folder:
        tensors = {"head.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
        store.write_model(folder, "erm", tensors, spec, {}, {})
    assert store.open_model(tmp_path / "erm", "erm", REMEDY).spec == spec
    stated = json.loads((tmp_path / "erm/model.json").read_text())["spec"]
    assert stated.get("range", "auto") == white
    assert ("range" in stated) == (white != "auto")


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
    with pytest.raises(MacError, match="states no other.safetensors"):
        store.open_model(tmp_path / "retrained", "retrained", REMEDY).read("other")
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


def test_heads_that_the_description_leaves_out_are_not_read(tmp_path: Path) -> None:
    with store.create_folder(tmp_path / "retrained") as folder:
        store.write_model(folder, "retrained", {"x": np.zeros(1)}, SPEC, {}, {}, head={"weight": np.zeros(1)})
    restate(tmp_path / "retrained", lambda about: about["files"].pop("head.safetensors"))
    with pytest.raises(
        MacError, match=r"model.json: damaged .*should have head.safetensors.*; run 'mac retr"
    ):
        graph.project(tmp_path).open("retrained").__enter__()


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


def test_swapped_classes_are_seen(model: Path) -> None:
    """They would swap the predictions: no digest but the file's own seal covers them."""
    description = model / "model.json"
    about = json.loads(description.read_text())
    about["spec"]["classes"].reverse()
    description.write_text(json.dumps(about))
    with pytest.raises(MacError, match=r"model.json: damaged .*not what was written.*; run 'mac train'"):
        store.open_model(model, "erm", REMEDY)
    del about["seal"]
    description.write_text(json.dumps(about))
    with pytest.raises(MacError, match=r"model.json: states no digest of itself .*; run 'mac train' again"):
        store.open_model(model, "erm", REMEDY)


def test_the_digest_that_others_note_is_of_spec_and_files_alone(model: Path) -> None:
    before = store.open_model(model, "erm", REMEDY).digest
    restate(model, lambda about: about["params"].update(k=2))
    assert store.open_model(model, "erm", REMEDY).digest == before


SHAPE = "tensor 'head.{}' has 3 along 'class', expected 2"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head.weight": np.full((2, 3), np.nan, np.float32)}, "tensor 'head.weight' has nan"),
        ({"head.bias": np.array([0, np.inf], np.float32)}, "tensor 'head.bias' has inf"),
        ({"trunk.x": np.array([np.nan], np.float32)}, "tensor 'trunk.x' has a number that is not finite"),
        ({"head.weight": np.ones((3, 3), np.float32)}, SHAPE.format("weight")),
        ({"head.bias": np.ones(3, np.float32)}, SHAPE.format("bias")),
        ({"head.bias": np.ones(2)}, "tensor 'head.bias' is float64"),
        ({"head.weight": np.ones((2, 0), np.float32)}, "tensor 'head.weight' is empty along 'feature'"),
    ],
)
def test_tensors_that_are_sealed_and_cannot_be(
    tmp_path: Path, tensors: dict[str, np.ndarray], message: str
) -> None:
    all_of = {"head.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(2, np.float32), **tensors}
    with store.create_folder(tmp_path / "erm") as folder:
        store.write_model(folder, "erm", all_of, SPEC, {}, {})
    with pytest.raises(MacError, match=rf"model.safetensors: damaged \({message}.*; run 'mac train'"):
        store.open_model(tmp_path / "erm", "erm", REMEDY, fields=fields_of)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", []),
        ("classes", ["cat", "cat"]),
        ("classes", ["cat", ""]),
        ("classes", ["cat", "x" * 2000]),
        ("attributes", ["a", "a"]),
        ("stored_size", 10**9),
        ("input_size", 0),
        ("input_size", 10**400),
    ],
)
def test_a_spec_that_is_sealed_and_cannot_be(model: Path, key: str, value: object) -> None:
    restate(model, lambda about: about["spec"].update({key: value}))
    with pytest.raises(MacError, match=rf"model.json: (damaged .*{key}|is not JSON).*; run 'mac train'"):
        store.open_model(model, "erm", REMEDY)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "metrics.json"])
def test_files_outside_of_the_folder_are_not_read(model: Path, name: str) -> None:
    restate(model, lambda about: about["files"].update({name: "0" * 64}))
    with pytest.raises(MacError, match=r"model.json: damaged .*is no file of tensors in this folder"):
        store.open_model(model, "erm", REMEDY)
