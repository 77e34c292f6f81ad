"""An exported file computes what the model computes, and says how its input is made."""

import json
import resource
import socket
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network.backbone import MeanPooled
from pipeline.network.classifier import Classifier
from pipeline.project import Project
from pipeline.results.choice import NOT_RETRAINED
from pipeline.tools.export import _WRITERS, FORMATS, TOLERANCE, Format, export
from pipeline.tools.model import load_model
from tests import made_up
from tests.conftest import REPOSITORY


def model_of(project: Project, name: str) -> Classifier:
    folder = {"mac": "retrained", "erm": "erm"}.get(name, "baselines")
    return load_model(project.path(folder), method=name if folder == "baselines" else None)[0]


def computed(file: Path, how: str, model: Classifier, x: Tensor) -> tuple[Tensor, Mapping[str, str]]:
    """What the file computes of x, and what it says of itself."""
    if how == "torchscript":
        extra = {"spec.json": ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded = torch.jit.load(file, _extra_files=extra)
        return loaded(x), json.loads(extra["spec.json"])
    if how == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {"image": x.numpy()})[0]
        return torch.from_numpy(logits), session.get_modelmeta().custom_metadata_map
    with safe_open(file, "pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        about = opened.metadata()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in state.items()} == shapes
    model.load_state_dict(state)
    return model(x), about


CASES = [
    ("onnx", "mac", True),
    ("torchscript", "mac", True),
    ("safetensors", "mac", False),
    ("torchscript", "erm", False),
    ("safetensors", "dfr", True),
]


@pytest.mark.parametrize(("how", "name", "calibrated"), CASES)
def test_it_computes_what_the_model_computes(
    artefacts: Project, tmp_path: Path, how: Format, name: str, calibrated: bool
) -> None:
    """If it is calibrated, with logits divided by the temperature that the card states."""
    if how == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    out = tmp_path / f"model.{how}"
    checked = export(artefacts, name, out, how, calibrated)
    assert (checked.images, checked.difference <= TOLERANCE) == (20, True)
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# `model.{how}`\n")
    assert ("## Calibration" in card, checked.temperature is not None) == (calibrated, calibrated)
    t = checked.temperature or 1
    assert not calibrated or (t != 1 and f"T = {t:.4g}. " in card)
    model = model_of(artefacts, name)
    x = torch.randn(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x) / t
        scale = model.features(x).abs() @ model.head.weight.abs().T / t + 1
        found, about = computed(out, how, model, x)
    assert float(((found - expected).abs() / scale).max()) <= TOLERANCE
    assert json.loads(about["classes"]) == list(made_up.SPEC.classes)
    assert json.loads(about["input_size"]) == 64
    assert json.loads(about["normalization"])["mean"] == list(made_up.SPEC.normalization.mean)
    assert json.loads(about["head"]) == name
    assert json.loads(about.get("temperature", "1")) == t


def test_the_same_head_gives_the_same_bytes(artefacts: Project, tmp_path: Path) -> None:
    """In the order of the specification; the library's own writer shuffles the metadata."""
    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    for file in files:
        export(artefacts, "erm", file, "safetensors")
    one, two = (file.read_bytes() for file in files)
    assert one == two
    length = int.from_bytes(one[:8], "little")
    assert length % 8 == 0
    header = json.loads(one[8 : 8 + length])
    assert list(header["__metadata__"]) == [*made_up.SPEC.as_json(), "head", "digest"]


def test_a_torchscript_file_says_nothing_of_this_machine(artefacts: Project, tmp_path: Path) -> None:
    """What PyTorch adds are the name of the file, lines of code, and a digest of these."""
    export(artefacts, "erm", tmp_path / "cow.pt", "torchscript")
    written = (tmp_path / "cow.pt").read_bytes()
    here = (f"@{socket.gethostname()}", "cow", "site-packages", str(REPOSITORY), "test_export.py")
    assert [name for name in here if name.encode() in written] == []
    with zipfile.ZipFile(tmp_path / "cow.pt") as archive:
        records = archive.infolist()
    assert {record.filename.partition("/")[0] for record in records} == {"archive"}
    assert {record.date_time for record in records} == {(1980, 1, 1, 0, 0, 0)}
    assert not [record for record in records if "serialization_id" in record.filename]


@pytest.mark.parametrize("how", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    artefacts: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Format
) -> None:
    """The limit on the size of a file stands for the disk. PyTorch's own writer would end this process."""
    if how == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        monkeypatch.setattr("torch.onnx.export", lambda *_, **__: _Exported())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(MacError, match=r"model.pt: cannot be written \(File too large\)"):
            export(artefacts, "erm", tmp_path / "model.pt", how)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


class _Exported:
    """Like the result of `torch.onnx.export`: the identity, and weights of 2^17 bytes."""

    @property
    def model_proto(self) -> Any:
        from onnx import TensorProto, helper

        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")]
        unused = helper.make_tensor("unused", TensorProto.FLOAT, [1 << 15], [0.0] * (1 << 15))
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:], [unused]
        )
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def test_what_is_missing_is_named_and_nothing_is_written(own_artefacts: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MacError, match="cow: no method has this name"):
        export(own_artefacts, "cow", out / "model.pt", "torchscript")
    with pytest.raises(MacError, match="MODEL_CARD.md: is the name of the model card; choose another"):
        export(own_artefacts, "mac", out / "MODEL_CARD.md", "torchscript")
    own_artefacts.path("features").unlink()
    with pytest.raises(MacError, match="features.h5: no such file; run 'mac features'"):
        export(own_artefacts, "mac", out / "model.pt", "torchscript")
    assert not out.exists()


def test_a_head_that_is_erm_s_own_is_exported_and_said(own_artefacts: Project, tmp_path: Path) -> None:
    made_up.prefer_erm(own_artefacts)
    export(own_artefacts, "mac", tmp_path / "mac.safetensors", "safetensors")
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert f"{NOT_RETRAINED}." in text
    export(own_artefacts, "erm", tmp_path / "erm.safetensors", "safetensors")
    mac, erm = (load_file(tmp_path / f"{name}.safetensors") for name in ("mac", "erm"))
    assert all(torch.equal(mac[name], erm[name]) for name in erm)


def test_a_file_that_computes_something_else_is_not_kept(
    artefacts: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tools.export.TOLERANCE", -1.0)
    with pytest.raises(MacError, match="model.safetensors: not written: its logits differ from PyTorch's by"):
        export(artefacts, "mac", tmp_path / "model.safetensors", "safetensors")
    assert not list(tmp_path.iterdir())


def test_without_its_card_no_file_is_written(own_artefacts: Project, tmp_path: Path) -> None:
    metrics, out = own_artefacts.path("baselines") / "metrics.json", tmp_path / "out"
    out.mkdir()
    found = json.loads(metrics.read_text())
    del found["methods"]["dfr"]["test"]
    metrics.write_text(json.dumps(found))
    with pytest.raises(
        MacError, match="metrics.json: damaged .does not state methods.dfr.test.; run 'mac baselines'"
    ):
        export(own_artefacts, "dfr", out / "model.safetensors", "safetensors")
    assert not list(out.iterdir())


class _Warning(MeanPooled):
    """A trunk that warns when it is traced, in a moment in which its class's attributes are in no cache."""

    def __init__(self) -> None:
        super().__init__(4)
        self.convolution = nn.Conv2d(3, 4, 3)

    def encode(self, x: Tensor) -> Tensor:
        maps = self.convolution(x)
        type(self).is_cold = True  # type: ignore[attr-defined]
        return torch.as_tensor(maps)


def test_exporting_leaves_a_class_of_modules_as_it_was(tmp_path: Path) -> None:
    """Where warnings are errors, as here, one that PyTorch forgets to raise could cost it `__getattr__`."""
    model = Classifier(_Warning(), 2).eval().requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    run = _WRITERS["torchscript"](model, x, {}, tmp_path / "model.pt")
    assert isinstance(model.trunk.convolution, nn.Conv2d)
    torch.testing.assert_close(run(x), model(x))
