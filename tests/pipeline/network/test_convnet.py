import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from pipeline.network import classifier
from pipeline.network.convnet import FAMILIES, ConvNet

# The families whose own classifier is one linear layer on the pooled maps.
# There, torchvision's forward pass is ours with its head.
SAME_FORWARD = (
    *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "regnet_y_400mf", "densenet121"),
    *("shufflenet_v2_x0_5", "mobilenet_v2", "efficientnet_b0", "mnasnet0_5"),
)


@pytest.mark.parametrize("architecture", SAME_FORWARD)
def test_the_forward_pass_is_torchvision_s(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model(architecture, weights=None, num_classes=3).eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    model = classifier.build(architecture, 3, str(tmp_path / "weights.safetensors")).eval()
    last = [module for module in reference.modules() if isinstance(module, torch.nn.Linear)][-1]
    model.head.load_state_dict(last.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = reference(x), model(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "squeezenet1_0"])
def test_the_width_is_the_number_of_the_last_maps(architecture: str) -> None:
    trunk = classifier.build(architecture, 2).trunk.eval()
    with torch.no_grad():
        state = trunk.encode(torch.zeros(1, 3, 64, 64))
    assert trunk.width == state.shape[1]
    assert torch.equal(trunk.grid(state), state)
    assert torch.equal(trunk.pool(state), state.mean((2, 3)))


def test_every_family_has_models() -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    for family in FAMILIES:
        assert any(name.startswith(family) for name in known), family


def test_tensors_keep_torchvision_s_names() -> None:
    model = classifier.build("resnet18", 2)
    names = torchvision.models.resnet18(weights=None).state_dict()
    expected = {f"trunk.{name}" for name in names if not name.startswith("fc.")}
    assert model.state_dict().keys() == expected | {"head.weight", "head.bias"}


@pytest.mark.parametrize("architecture", [*SAME_FORWARD, "squeezenet1_1"])
def test_made_for_inference_it_computes_the_same(architecture: str, sample) -> None:  # type: ignore[no-untyped-def]
    model = classifier.build(architecture, 3).eval().requires_grad_(False)
    for module in normalisations(model):  # as after training, where folding has something to do
        for part in (module.running_mean, module.running_var, module.weight, module.bias):
            part.copy_(sample(len(part)) + 0.5)
    x = sample(2, 3, 64, 64) - 0.5
    expected, logits = model.encode(x), model(x)
    fast = classifier.for_inference(copy.deepcopy(model), torch.float32)
    assert fast.trunk.mean_pooled
    assert fast.trunk.rectified == model.trunk.rectified
    assert (fast.trunk.width, fast.trunk.normalization) == (model.trunk.width, model.trunk.normalization)
    folded = len(normalisations(fast)) < len(normalisations(model))
    assert folded or architecture == "squeezenet1_1"
    assert (fast.encode(x) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (fast(x) - logits).abs().max() < 1e-4 * logits.abs().max()
    coarse = classifier.for_inference(model, torch.bfloat16)
    assert coarse.dtype == torch.bfloat16
    found, pooled = coarse.features(x.bfloat16()), expected.mean((2, 3))
    assert found.dtype == torch.float32
    assert (found - pooled).abs().max() < 0.1 * pooled.abs().max()


def normalisations(model: torch.nn.Module) -> list[torch.nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_inference_leaves_the_network_itself_alone() -> None:
    trunk = classifier.build("shufflenet_v2_x0_5", 2).eval().requires_grad_(False).trunk
    before = copy.deepcopy(trunk.state_dict())
    assert isinstance(trunk, ConvNet)
    trunk.for_inference(torch.float32)
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())
