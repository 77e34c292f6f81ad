"""The contract, kept by backbones that pipeline/ does not have: what another author writes by the recipe."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor

from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.backbone import at_least_float32
from pipeline.network.classifier import Classifier
from tests.networks import Tokens, convnext


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.convnext_tiny(weights=None, num_classes=3).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(reference: torch.nn.Module) -> Classifier:
    """The same network, built from a registry that has one entry more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifier.BUILDERS, "convnext", convnext)
        built = classifier.build("convnext_tiny", 3).eval().requires_grad_(False)
    built.trunk.features.load_state_dict(reference.features.state_dict())
    built.trunk.norm.load_state_dict(reference.classifier[0].state_dict())
    built.head.load_state_dict(reference.classifier[2].state_dict())
    return built


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_an_architecture_without_an_entry_is_refused() -> None:
    with pytest.raises(MacError, match="'convnext_tiny' is of none of the families resnet, "):
        classifier.build("convnext_tiny", 3)


def test_a_network_with_another_readout_computes_what_torchvision_computes(
    reference: torch.nn.Module, model: Classifier, x: Tensor
) -> None:
    expected = reference(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    before_head = reference.classifier[:2](reference.avgpool(reference.features(x)))
    torch.testing.assert_close(model.features(x), before_head, rtol=1e-4, atol=1e-5)


def test_by_default_nothing_but_the_type_changes_for_inference(x: Tensor) -> None:
    model = Classifier(Tokens(), 3).eval()
    x = x[..., :32, :32]
    expected = model(x)
    fast = classifier.for_inference(copy.deepcopy(model), torch.float32)
    assert torch.equal(fast(x), expected)
    assert fast.trunk.for_inference(torch.bfloat16).dtype == torch.bfloat16


def test_a_readout_may_stay_in_float32(model: Classifier, x: Tensor) -> None:
    coarse = classifier.for_inference(copy.deepcopy(model), torch.bfloat16)
    assert coarse.dtype == torch.bfloat16
    assert coarse.input(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).dtype == torch.bfloat16
    assert coarse.encode(x.bfloat16()).dtype == torch.bfloat16
    found = coarse.features(x.bfloat16())
    assert found.dtype == torch.float32
    expected = model.features(x)
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_no_precision_is_lost(given: torch.dtype, expected: torch.dtype) -> None:
    assert at_least_float32(torch.ones(1, dtype=given)).dtype == expected
