"""The contract, kept by backbones that pipeline/ does not have: what another author writes by the recipe."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.backbone import Network, at_least_float32
from pipeline.network.classifier import Classifier
from tests.networks import Tokens


def test_an_architecture_without_an_entry_is_refused_and_with_one_it_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(MacError, match="'tokens_12' is of none of the families resnet, "):
        classifier.build("tokens_12", 3)

    def tokens(architecture: str, weights: str, input_size: int) -> Network:
        assert (architecture, weights, input_size) == ("tokens_12", "none", 32)
        return Network(nn.Identity(), "head", lambda _: Tokens(12))

    monkeypatch.setitem(classifier.BUILDERS, "tokens", tokens)
    built = classifier.build("tokens_12", 3, input_size=32)
    assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_by_default_nothing_but_the_type_changes_for_inference(x: Tensor) -> None:
    model = Classifier(Tokens(), 3).eval()
    expected = model(x)
    fast = classifier.for_inference(copy.deepcopy(model), torch.float32)
    assert torch.equal(fast(x), expected)
    assert fast.trunk.for_inference(torch.bfloat16).dtype == torch.bfloat16


def test_the_readout_stays_in_float32(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Classifier(Tokens(), 3).eval().requires_grad_(False)
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
