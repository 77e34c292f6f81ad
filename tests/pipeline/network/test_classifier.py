import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.spec import IMAGENET, ModelSpec, Normalization

SPEC = ModelSpec(
    architecture="shufflenet_v2_x0_5",
    classes=("cat", "dog"),
    attributes=("day", "night"),
    stored_size=72,
    to_stored="squash",
    input_size=64,
    to_input="center_crop",
    normalization=IMAGENET,
)
CPU = torch.device("cpu")


def test_the_initialisation_follows_the_seed() -> None:
    first, again, other = (classifier.build("shufflenet_v2_x0_5", 2, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("architecture", ["alexnet", "nothing"])
def test_an_architecture_of_no_family_is_one_line(architecture: str) -> None:
    message = f"model.architecture: '{architecture}' is of none of the families resnet, "
    with pytest.raises(MacError, match=message):
        classifier.build(architecture, 2)


def test_logits_are_the_head_of_the_features(sample) -> None:  # type: ignore[no-untyped-def]
    model = classifier.build("squeezenet1_1", 3).eval()
    x = sample(2, 3, 64, 64)
    state = model.encode(x)
    assert torch.equal(model.features(x), state.mean((2, 3)))
    assert torch.equal(model(x), model.head(state.mean((2, 3))))


def test_what_is_loaded_computes_what_was_saved(sample) -> None:  # type: ignore[no-untyped-def]
    model = classifier.build("shufflenet_v2_x0_5", 2, seed=5).eval()
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    again = classifier.load(SPEC, tensors, CPU)
    x = sample(2, 3, 64, 64)
    assert torch.equal(again(x), model(x))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    tensors["head.bias"].flags.writeable = False  # as of a file that is mapped into memory
    assert torch.equal(classifier.load(SPEC, tensors, CPU)(x), model(x))


@pytest.mark.parametrize("fast", [False, True])
def test_the_spec_s_normalisation_is_the_one_that_is_used(fast: bool) -> None:
    tensors = {name: t.numpy() for name, t in classifier.build("squeezenet1_1", 2).state_dict().items()}
    grid = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8))
    own = Normalization((0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    expected = (grid / 255 - torch.tensor(own.mean)[:, None, None]) / torch.tensor(own.std)[:, None, None]
    for spec, is_same in ((SPEC, False), (replace(SPEC, normalization=own), True)):
        model = classifier.load(replace(spec, architecture="squeezenet1_1"), tensors, CPU)
        if fast:
            model = classifier.for_inference(model, torch.float32)
        assert torch.allclose(model.input(grid), expected, atol=1e-6) == is_same
        assert torch.allclose(model.input(grid.float() / 255), expected, atol=1e-6) == is_same


def test_it_is_traced_without_a_warning() -> None:
    model = classifier.build("resnet18", 3).eval().requires_grad_(False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.jit.trace(model, torch.randn(2, 3, 64, 64))
    assert [each for each in said if issubclass(each.category, torch.jit.TracerWarning)] == []


def test_the_longest_family_name_builds_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(architecture: str, weights: str, input_size: int) -> None:
        raise AssertionError(architecture)

    monkeypatch.setitem(classifier.BUILDERS, "shuffle", refuse)
    assert classifier.build("shufflenet_v2_x0_5", 2).trunk.width == 1024


def test_tensors_of_another_architecture_are_refused() -> None:
    model = classifier.build("squeezenet1_1", 2)
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    with pytest.raises(MacError, match="model.json: its architecture 'shufflenet_v2_x0_5' does not fit"):
        classifier.load(SPEC, tensors, CPU)


def test_a_network_has_its_own_normalization_unless_another_is_given() -> None:
    assert classifier.build("squeezenet1_1", 2).trunk.normalization == IMAGENET
    other = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert classifier.build("squeezenet1_1", 2, normalization=other).trunk.normalization == other
