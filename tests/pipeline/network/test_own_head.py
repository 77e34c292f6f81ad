"""The head of one's own classifier, in the forms that programs give it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.spec import Normalization

ARCHITECTURE, WIDTH, CLASSES = "shufflenet_v2_x0_5", 1024, ("cat", "dog")

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """torchvision's, with two outputs, as it would be after a training."""
    torch.manual_seed(0)
    made: nn.Module = torchvision.models.get_model(ARCHITECTURE, num_classes=2)
    with torch.no_grad():
        made(torch.rand(8, 3, 64, 64))
    return made.eval()


@pytest.fixture(scope="module")
def state(network: nn.Module) -> State:
    return dict(network.state_dict())


def trunk(state: State, prefix: str = "") -> State:
    return {f"{prefix}{name}": each for name, each in state.items() if not name.startswith("fc.")}


def head(name: str, state: State) -> State:
    return {f"{name}.weight": state["fc.weight"], f"{name}.bias": state["fc.bias"]}


def load(
    folder: Path, state: State, classes: Sequence[str] = CLASSES, order: Sequence[str] | None = None
) -> Classifier:
    save_file(state, folder / "own.safetensors")
    return classifier.from_file(
        ARCHITECTURE, folder / "own.safetensors", classes, order, input_size=64
    ).eval()


def logits(model: Classifier) -> Tensor:
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (lambda state: state, "fc"),
        (lambda state: {**trunk(state, "backbone."), **head("fc", state)}, "fc"),
        (lambda state: {**trunk(state, "backbone."), **head("head", state)}, "head"),
        (lambda state: {**trunk(state), **head("fc.1", state)}, "fc.1"),
        (lambda state: {**trunk(state, "0."), **head("1", state)}, "1"),
        (
            lambda state: {**trunk(state, "net."), **head("net.fc", state), "aux.weight": torch.ones(2, 9)},
            "net.fc",
        ),
    ],
)
def test_it_is_found_by_its_name_or_as_the_only_layer_beside_the_trunk(
    tmp_path: Path,
    network: nn.Module,
    state: State,
    form: Callable[[State], State],
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", logger="mac"):
        found = logits(load(tmp_path, form(state)))
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, network(x).detach(), rtol=1e-5, atol=1e-5)
    (line,) = caplog.messages
    assert line.endswith(f"the head '{name}'")


def test_without_a_bias_it_is_zero_and_said(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="mac"):
        found = load(tmp_path, {**trunk(state), "fc.weight": state["fc.weight"]})
    assert torch.equal(found.head.weight, state["fc.weight"])
    assert found.head.bias.tolist() == [0, 0]
    assert "the head 'fc' (without a bias: zeros)" in caplog.text


def test_outputs_in_another_order_are_sorted(tmp_path: Path, state: State) -> None:
    classes, order = ("ape", "bat", "cat"), ("cat", "ape", "bat")
    three = {**trunk(state), "fc.weight": torch.randn(3, WIDTH), "fc.bias": torch.tensor([3.0, 1.0, 2.0])}
    found = load(tmp_path, three, classes, order).head
    assert found.bias.tolist() == [1, 2, 3]
    assert torch.equal(found.weight, three["fc.weight"][[1, 2, 0]])


@pytest.mark.parametrize("order", [("cat", "dog"), ("dog", "cat")])
def test_a_sigmoid_is_a_softmax_of_two(tmp_path: Path, state: State, order: tuple[str, str]) -> None:
    w, b = torch.randn(1, WIDTH), torch.tensor([0.3])
    found = load(tmp_path, {**trunk(state), "fc.weight": w, "fc.bias": b}, order=order)
    phi = torch.rand(5, WIDTH)
    positive = torch.sigmoid(phi @ w[0] + b)
    with torch.no_grad():
        probability = found.head(phi).softmax(1)
    torch.testing.assert_close(probability[:, CLASSES.index(order[1])], positive)


@pytest.mark.parametrize(
    ("form", "order", "message"),
    [
        (
            lambda state: {**trunk(state), "fc.weight": torch.zeros(1000, WIDTH)},
            None,
            r"the head 'fc' has 1000 outputs, and the dataset 2 classes \(cat, dog\); to train a head on "
            "this trunk, set model.classifier to null and model.weights to this file",
        ),
        (
            lambda state: {**trunk(state), "fc.weight": torch.zeros(1, WIDTH)},
            None,
            r"the head 'fc' has one output, a sigmoid; say in model.classes which .*: \[cat, dog\]",
        ),
        (lambda state: state, ["cat", "Dog"], "model.classes should have .*once: cat, dog; it has cat, Dog"),
        (lambda state: state, ["cat", "cat"], "model.classes should have .*once: cat, dog; it has cat, cat"),
        (
            lambda state: {
                **trunk(state),
                "fc.0.weight": torch.zeros(8, WIDTH),
                "fc.2.weight": torch.ones(2, 8),
            },
            None,
            r"has several layers beside the trunk \('fc.0' \(8, 1024\), 'fc.2' \(2, 8\)\); only one linear",
        ),
        (
            lambda state: {**trunk(state), "fc.0.weight": torch.ones(WIDTH), **head("fc.1", state)},
            None,
            "has 'fc.0.weight' between the trunk and the head 'fc.1'; only one linear",
        ),
        (
            lambda state: {**state, "attention.weight": torch.ones(8, 8, 1, 1)},
            None,
            r"has several layers beside the trunk \('attention' \(8, 8, 1, 1\), 'fc' \(2, 1024\)\); only",
        ),
        (lambda state: trunk(state), None, "has no head beside the trunk; only one linear layer on the 1024"),
        (
            lambda state: {**trunk(state), "fc.weight": torch.zeros(2, WIDTH, 1, 1)},
            None,
            r"the head 'fc' is \(2, 1024, 1, 1\); only one linear",
        ),
        (lambda state: {**state, "fc.bias": state["fc.bias"] / 0}, None, "'fc.bias' has values that are NaN"),
        (
            lambda state: {**state, "fc.bias": torch.ones(3)},
            None,
            r"'fc.bias' should be \(2,\), found \(3,\)",
        ),
    ],
)
def test_a_head_that_does_not_fit_says_why(
    tmp_path: Path, state: State, form: Callable[[State], State], order: Sequence[str] | None, message: str
) -> None:
    with pytest.raises(MacError, match=f"model.classifier: .*own.safetensors: {message}"):
        load(tmp_path, form(state), order=order)


def test_its_own_normalisation_is_used(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "own.safetensors")
    half = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model = classifier.from_file(ARCHITECTURE, tmp_path / "own.safetensors", CLASSES, normalization=half)
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert model.input(pixels).flatten().tolist() == [2] * 12
