import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from pipeline.errors import MacError
from pipeline.network import backbone

# The families whose own classifier is one linear layer on the pooled maps: torchvision's forward is ours with its head.
SAME_FORWARD = (
    *("resnet18", "resnext50_32x4d", "wide_resnet50_2", "regnet_y_400mf", "densenet121"),
    *("shufflenet_v2_x0_5", "mobilenet_v2", "efficientnet_b0", "mnasnet0_5"),
)


@pytest.mark.parametrize("architecture", SAME_FORWARD)
def test_the_forward_pass_is_torchvision_s(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model(architecture, weights=None, num_classes=3).eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    model = backbone.build(architecture, 3, str(tmp_path / "weights.safetensors")).eval()
    last = [module for module in reference.modules() if isinstance(module, torch.nn.Linear)][-1]
    model.head.load_state_dict(last.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = reference(x), model(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("architecture", [*SAME_FORWARD, "squeezenet1_1"])
def test_made_for_inference_it_computes_the_same(architecture: str, sample) -> None:  # type: ignore[no-untyped-def]
    model = backbone.build(architecture, 3).eval().requires_grad_(False)
    for module in model.trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training, where folding has something to do
            for part in (module.running_mean, module.running_var, module.weight, module.bias):
                part.copy_(sample(len(part)) + 0.5)  # type: ignore[union-attr, arg-type]
    x = sample(2, 3, 64, 64) - 0.5
    expected, logits = model.activations(x), model(x)
    fast = backbone.for_inference(copy.deepcopy(model), torch.float32)
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in fast.trunk.modules())
    assert left < sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.trunk.modules()) or architecture == "squeezenet1_1"
    assert (fast.activations(x) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (fast(x) - logits).abs().max() < 1e-4 * logits.abs().max()
    coarse = backbone.for_inference(model, torch.bfloat16)
    assert coarse.features(x.bfloat16()).dtype == torch.float32
    assert (coarse.features(x.bfloat16()) - expected.mean((2, 3))).abs().max() < 0.1 * expected.mean((2, 3)).abs().max()


def test_weights_from_a_pth_file(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    model = backbone.build("resnet18", 2, str(tmp_path / "weights.pth"))
    assert torch.equal(model.trunk.conv1.weight, reference.conv1.weight)  # type: ignore[union-attr, arg-type]


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(MacError, match="cannot be read as .pth"):
        backbone.build("resnet18", 2, str(tmp_path / "weights.pth"))
    assert not (tmp_path / "owned").exists()


def test_the_initialisation_follows_the_seed() -> None:
    first, again, other = (backbone.build("shufflenet_v2_x0_5", 2, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        ("resnet19", "none", "model.architecture: 'resnet19' is not a torchvision model of the families resnet"),
        ("vit_b_16", "none", "model.architecture: 'vit_b_16'"),
        ("resnet18", "IMAGENET", r"model.weights: 'IMAGENET' is neither none, nor .*IMAGENET1K_V1"),
        ("resnet18", "missing.pth", "model.weights: missing.pth: no such file"),
    ],
)
def test_what_cannot_be_built_is_one_line(architecture: str, weights: str, message: str) -> None:
    with pytest.raises(MacError, match=message):
        backbone.build(architecture, 2, weights)


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "r50.safetensors")
    with pytest.raises(MacError, match=r"r50.safetensors: 'layer1.0.conv1.weight' should be .* of another architecture"):
        backbone.build("resnet18", 2, str(tmp_path / "r50.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "r50.safetensors").read_bytes()[:1000])
    with pytest.raises(MacError, match=r"cut.safetensors: cannot be read"):
        backbone.build("resnet18", 2, str(tmp_path / "cut.safetensors"))
