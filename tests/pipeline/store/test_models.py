import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.errors import MacError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = {"head.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
    with store.create_folder(tmp_path / "erm") as folder:
        store.write_model(folder, "erm", tensors, {"architecture": "x"}, {}, {"images": "a"})
    return tmp_path / "erm"


def test_a_model_folder_can_be_read_back(model: Path) -> None:
    folder = store.open_model(model, "erm", {"images": "a"})
    assert folder.head()[0].shape == (2, 3)
    assert sorted(folder.read()) == ["head.bias", "head.weight"]


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_a_truncated_model(model: Path, file: str) -> None:
    os.truncate(model / file, (model / file).stat().st_size // 2)
    with pytest.raises(MacError, match=rf"{file}: (damaged|truncated).*run 'mac train'"):
        store.open_model(model, "erm")


def test_a_model_whose_description_leaves_the_tensors_out(model: Path) -> None:
    description = model / "model.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "files": {}}))
    with pytest.raises(MacError, match=r"model.json: damaged .*model.safetensors.*run 'mac train'"):
        store.open_model(model, "erm")


def test_a_model_that_is_missing_or_of_another_kind(model: Path) -> None:
    with pytest.raises(MacError, match="holds 'erm' version 1, expected 'retrained'"):
        store.open_model(model, "retrained")
    shutil.rmtree(model)
    with pytest.raises(MacError, match=r"no such file; run 'mac train'"):
        store.open_model(model, "erm")


def test_a_folder_is_replaced_whole_or_not_at_all(model: Path) -> None:
    with pytest.raises(RuntimeError), store.create_folder(model) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "model.safetensors"]
    with store.create_folder(model) as folder:
        (folder / "new").write_text("")
    assert [p.name for p in model.iterdir()] == ["new"]
    assert [p.name for p in model.parent.iterdir()] == ["erm"]
