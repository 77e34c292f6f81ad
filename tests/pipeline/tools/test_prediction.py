"""mac predict, explain and export on the finished project: what they say is what the artefacts say."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import store
from pipeline.results.scores import head_logits
from pipeline.tools.export import FORMATS, TOLERANCE
from pipeline.tools.prediction import load_model
from tests.conftest import Project


@pytest.fixture(scope="module")
def files(finished: Project) -> tuple[list[Path], np.ndarray]:
    """The first test images, and both heads' probabilities for them by features.h5, (n, 2, classes)."""
    data = finished.data
    root = Path(finished.params.dataset.root)
    with store.open_artefact(data / "images.h5") as images, store.open_artefact(data / "features.h5") as features:
        rows = features["test/row"][:5]
        paths = [root / images["path"][int(row)].decode() for row in rows]
        heads = [store.open_model(data / name, name).head() for name in ("erm", "retrained")]
        logits = np.stack([head_logits(features["test/original"][:5], *head) for head in heads], 1)
    return paths, torch.from_numpy(logits).softmax(-1).numpy()


def test_predict_says_what_the_cached_features_say(
    finished: Project, files: tuple[list[Path], np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths, expected = files
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    finished.succeed("predict", *map(str, paths), str(tmp_path), "--csv", str(tmp_path / "out.csv"))
    assert "broken.jpg: cannot be read as an image" in caplog.text
    assert "1 of 6 files cannot be read" in caplog.text
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    classes = load_classes(finished)
    assert [row["path"] for row in rows] == [*map(str, paths), str(tmp_path / "broken.jpg")]
    found = np.array([[[float(row[f"{key}: {name}"]) for name in classes] for key in ("erm", "mac")] for row in rows[:5]])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for row, probability in zip(rows, expected, strict=False):
        assert (row["erm"], row["mac"], row["error"]) == (*(classes[i] for i in probability.argmax(1)), "")
    assert rows[5]["erm"] == rows[5]["mac: " + classes[0]] == ""


def load_classes(project: Project) -> list[str]:
    return list(store.open_model(project.data / "erm", "erm").spec["classes"])


def test_predict_as_text_and_as_json(finished: Project, files: tuple[list[Path], np.ndarray]) -> None:
    paths, expected = files
    pattern = str(paths[0].parent / ("*" + paths[0].suffix))
    text = finished.succeed("predict", pattern).stdout
    assert str(paths[0]) in text
    line = json.loads(finished.succeed("predict", str(paths[0]), "--json").stdout)
    assert list(line["mac"]["probability"].values()) == pytest.approx(expected[0, 1].tolist(), abs=1e-4)
    assert f"MaC {line['mac']['class']} {100 * max(line['mac']['probability'].values()):.1f} %" in text


def test_bad_usage_is_one_line(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("usage")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"")
    assert "nowhere.jpg: no such file or folder, and no pattern" in project.fail("predict", "nowhere.jpg")
    assert "no image file in this folder" in project.fail("predict", str(tmp_path / "empty"))
    assert "none of the files can be read" in project.fail("predict", str(tmp_path / "broken.jpg"))
    assert "cannot be read as an image" in project.fail("explain", str(tmp_path / "broken.jpg"), "--out", str(tmp_path / "x.png"))
    Image.new("RGB", (50, 40)).save(tmp_path / "black.png")
    image = str(tmp_path / "black.png")
    assert "--target cow: no such class" in project.fail("explain", image, "--target", "cow", "--out", str(tmp_path / "x.png"))
    features = (project.data / "features.h5").rename(tmp_path / "elsewhere.h5")
    assert "run 'mac features'" in project.fail("export", "--format", "torchscript", "--out", str(tmp_path / "model.pt"))
    features.rename(project.data / "features.h5")
    (project.data / "masks.h5").unlink()
    assert "masks.h5: no such file; run 'mac saliency'" in project.fail("explain", image, "--out", str(tmp_path / "x.png"))
    for file in (project.data / "retrained").iterdir():
        file.unlink()
    assert "run 'mac retrain'" in project.fail("predict", image)
    assert {file.name for file in tmp_path.iterdir()} == {"empty", "broken.jpg", "black.png"}


def test_explain_draws_a_row_an_image(finished: Project, files: tuple[list[Path], np.ndarray], tmp_path: Path) -> None:
    paths, _ = files
    finished.succeed("explain", str(paths[0]), str(paths[1]), "--out", str(tmp_path / "x.png"))
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (4 * 248 + 8 + 260, 2 * 270)
    finished.succeed("explain", str(paths[0]), "--top-k", "0.1", "--target", load_classes(finished)[0], "--out", str(tmp_path / "y.png"))


@pytest.mark.parametrize(("how", "model"), [*((how, "mac") for how in FORMATS), ("torchscript", "erm")])
def test_an_exported_file_computes_what_the_model_computes(finished: Project, tmp_path: Path, how: str, model: str) -> None:
    if how == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    out = tmp_path / f"model.{how}"
    said = finished.succeed("export", "--format", how, "--model", model, "--out", str(out)).stdout
    assert f"{out} (32 images" in said
    card = (tmp_path / "MODEL_CARD.md").read_text()
    metrics = json.loads((finished.data / "metrics.json").read_text())
    for word in ("## Data", "## Method", "## Results", "## Limits", f"{100 * metrics['mac']['test']['worst_group']['mean']:.2f}"):
        assert word in card
    assert ("last layer retrained" in card) == (model == "mac")
    folder = finished.data / ("retrained" if model == "mac" else "erm")
    module, transform = load_model(folder)
    x = torch.randn(7, 3, transform.input_size, transform.input_size)
    with torch.no_grad():
        expected = module(x)
        scale = module.features(x).abs() @ module.head.weight.abs().T + 1
    if how == "torchscript":
        extra = {"spec.json": ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded = torch.jit.load(out, _extra_files=extra)
        found, about = loaded(x), json.loads(extra["spec.json"])
    elif how == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])
        about = session.get_modelmeta().custom_metadata_map
    else:
        from safetensors import safe_open

        with safe_open(out, "pt") as file:
            about = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in module.state_dict().items()}
        module.load_state_dict(state)
        with torch.no_grad():
            found = module(x)
    assert float(((found - expected).abs() / scale).max()) <= TOLERANCE
    assert json.loads(about["classes"]) == load_classes(finished)
    assert json.loads(about["input_size"]) == transform.input_size


def test_a_model_in_two_lines(finished: Project, files: tuple[list[Path], np.ndarray]) -> None:
    paths, expected = files
    model, transform = load_model(finished.data / "retrained")
    with torch.no_grad():
        probability = model(transform(paths[0])[None]).softmax(-1)[0]
    np.testing.assert_allclose(probability, expected[0, 1], atol=1e-4)
    with Image.open(paths[0]) as image:
        assert torch.equal(transform(image), transform(paths[0]))
