"""Networks of torchvision and timm with random weights, held against what their libraries compute."""

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.method import gradient_maps
from pipeline.method.gradient_maps import GradientMap
from pipeline.network import classifier
from pipeline.network.backbone import Network
from pipeline.network.classifier import Classifier
from pipeline.spec import ModelSpec
from pipeline.tools import export

CLASSES = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A network, and where its activations are.

    Attributes:
        side: of the input, pixels.
        layer: the module of the library's network whose output the map explains; with `<`, its input.
        first: where the activations are tokens: the number of those that are no patches.
    """

    side: int
    layer: str
    first: int = 0


CASES = {
    "resnet18": Case(64, "layer4"),
    "efficientnet_b0": Case(64, "features"),
    "mobilenet_v3_small": Case(64, "features"),
    "convnext_tiny": Case(64, "features"),
    "swin_t": Case(64, "norm"),
    "maxvit_t": Case(224, "blocks.3"),
    "vit_b_32": Case(64, "<encoder.layers.encoder_layer_11", first=1),
    "timm/densenet121": Case(64, "features"),
    "timm/tf_efficientnet_lite0": Case(64, "bn2"),
    "timm/convnext_atto": Case(64, "stages"),
    "timm/swin_s3_tiny_224": Case(112, "norm"),
    "timm/vit_small_patch16_224": Case(64, "<blocks.11", first=1),
    "timm/vit_little_patch16_reg1_gap_256": Case(64, "norm", first=1),
    "timm/vit_small_patch14_reg4_dinov2": Case(56, "<blocks.11", first=5),
    "timm/vit_xsmall_patch16_clip_224": Case(64, "<blocks.9", first=1),
    "timm/vit_small_patch16_dinov3": Case(64, "norm", first=5),
}


# Written as ONNX in a test; it takes seconds each, so the larger networks are left out.
EXPORTED = (
    *("mobilenet_v3_small", "vit_b_32", "timm/convnext_atto", "timm/vit_small_patch16_224"),
    *("timm/vit_small_patch14_reg4_dinov2", "timm/vit_xsmall_patch16_clip_224"),
)


@dataclass(frozen=True)
class Built:
    """A network as its library made it, with a head of three classes; and what MaC makes of the same one."""

    architecture: str
    case: Case
    whole: nn.Module
    model: Classifier
    x: Tensor


@pytest.fixture(scope="module", params=CASES)
def built(request: pytest.FixtureRequest) -> Built:
    architecture, case = request.param, CASES[request.param]
    if architecture.startswith("timm/"):
        pytest.importorskip("timm")
    return _built(architecture, case)


def _built(architecture: str, case: Case) -> Built:
    network = made(architecture, case.side)
    whole = deepcopy(network.module)
    trunk = network.trunk(network.module)
    whole.set_submodule(network.head, nn.Linear(trunk.width, CLASSES))
    model = Classifier(trunk, CLASSES)
    model.head.load_state_dict(whole.get_submodule(network.head).state_dict())
    x = torch.randn(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(5))
    return Built(
        architecture, case, whole.eval().requires_grad_(False), model.eval().requires_grad_(False), x
    )


def made(architecture: str, side: int) -> Network:
    """The library's network, with random weights that all do something."""
    torch.manual_seed(1)
    found = classifier.builder(architecture)(architecture, "none", side)
    for name, tensor in found.module.state_dict().items():
        if name.endswith(("gamma", "layer_scale")):
            tensor.fill_(0.5)  # near 0, most blocks add next to nothing
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return found


def test_its_logits_are_the_library_s(built: Built) -> None:
    expected, found = built.whole(built.x), built.model(built.x)
    assert found.shape == (2, CLASSES)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")
def test_its_maps_are_those_of_the_whole_network_s_gradient(built: Built) -> None:
    target, whole, model = (
        torch.tensor([0, 2]),
        deepcopy(built.whole).double(),
        deepcopy(built.model).double(),
    )
    maps, gradient = _whole_gradient(whole, built.case, built.x.double(), target)
    weight = (gradient * maps).sum((2, 3)) / (maps.sum((2, 3)) + 1e-7)
    expected: dict[GradientMap, Tensor] = {
        "hirescam": (gradient * maps).sum(1),
        "xgradcam": (weight[..., None, None] * maps).sum(1),
    }
    state = model.encode(built.x.double())
    for method, each in expected.items():
        found = gradient_maps.of_head(model.trunk, state, model.head.weight, target, method)
        assert found.shape == each.shape
        assert (found - each).abs().max() <= 1e-6 * each.abs().max()


def _whole_gradient(whole: nn.Module, case: Case, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The activations as maps (B, C, h, w), and the gradient of the targets' logits."""
    kept: list[Tensor] = []
    module = whole.get_submodule(case.layer.removeprefix("<"))

    def keep(tensor: Tensor) -> Tensor:
        leaf = tensor.detach().requires_grad_()
        kept.append(leaf)
        return leaf

    if case.layer.startswith("<"):
        handle: Any = module.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]), *inputs[1:]))
    else:
        handle = module.register_forward_hook(lambda _, _inputs, output: keep(output))
    with torch.enable_grad():
        logits = whole(x)
        (gradient,) = torch.autograd.grad(logits[torch.arange(2), target].sum(), kept[0])
    handle.remove()
    return _as_maps(kept[0].detach(), case.first), _as_maps(gradient, case.first)


def _as_maps(tensor: Tensor, first: int) -> Tensor:
    if tensor.ndim == 3:
        patches = tensor[:, first:]
        side = int(patches.shape[1] ** 0.5)
        tensor = patches.reshape(len(tensor), side, side, -1)
    is_channels_last = tensor.shape[1] == tensor.shape[2]
    return tensor.permute(0, 3, 1, 2) if is_channels_last else tensor


def test_it_is_saved_and_loaded(built: Built) -> None:
    spec = ModelSpec(
        architecture=built.architecture,
        classes=("a", "b", "c"),
        attributes=(),
        stored_size=built.case.side,
        to_stored="squash",
        input_size=built.case.side,
        to_input="resize",
        normalization=built.model.trunk.normalization,
    )
    tensors = {name: tensor.numpy() for name, tensor in built.model.state_dict().items()}
    again = classifier.load(ModelSpec.from_json(json.loads(json.dumps(spec.as_json()))), tensors, CPU)
    expected = built.model(built.x)
    assert (again(built.x) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")
def test_exported_it_computes_the_same_for_any_number_of_images(built: Built, tmp_path: Path) -> None:
    about, x = {"classes": "[]"}, torch.cat([built.x, built.x[:1]])
    expected = built.model(x)
    files = {"torchscript": export._torchscript, "onnx": export._onnx}
    for name, write in files.items():
        if name == "onnx" and built.architecture not in EXPORTED:
            continue
        found = write(built.model, built.x, about, tmp_path / name)(x)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def test_half_precision_changes_little_and_the_readout_stays(built: Built) -> None:
    expected = built.model.features(built.x)
    trunk = built.model.trunk.for_inference(torch.bfloat16)
    found = trunk.pool(trunk.encode(built.x.bfloat16()))
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.1 * expected.norm()
