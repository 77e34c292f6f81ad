from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network.published import torchvision_network
from pipeline.network.weights import fill, weights_file

State = dict[str, Tensor]
Form = Callable[[State], Any]


def build(weights: Path | str) -> torch.nn.Module:
    file = weights_file(str(weights))
    network = torchvision_network("resnet18", "none" if file else str(weights))
    if file:
        fill(network, file, head="fc")
    return network


def test_weights_from_a_pth_file(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    found, expected = build(tmp_path / "weights.pth").state_dict(), reference.state_dict()
    for name in expected:
        assert torch.equal(found[name], expected[name]) == (not name.startswith("fc.")), name


def test_the_head_may_be_missing_or_of_other_classes(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None, num_classes=7)
    state = reference.state_dict()
    save_file(state, tmp_path / "seven.safetensors")
    save_file({k: v for k, v in state.items() if "fc." not in k}, tmp_path / "none.safetensors")
    for file in ("seven.safetensors", "none.safetensors"):
        assert torch.equal(build(tmp_path / file).conv1.weight, reference.conv1.weight)


@pytest.fixture(scope="module")
def state() -> State:
    return torchvision.models.resnet18(weights=None).state_dict()


def named(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda state: {"state_dict": named("module.", state)},
        lambda state: {"model": state},
        lambda state: {"state_dict": named("model.", state), "epoch": 3, "queue": torch.zeros(2)},
        lambda state: {"epoch": 3, "model": {"state_dict": state}},
        lambda state: {**named("trunk.", state), "head.weight": torch.zeros(2, 512)},
        lambda state: {name: tensor.double() for name, tensor in state.items()},
    ],
)
def test_weights_in_a_checkpoint(tmp_path: Path, state: State, form: Form) -> None:
    torch.save(form(state), tmp_path / "weights.ckpt")
    found = build(tmp_path / "weights.ckpt").state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state if not key.startswith("fc."))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda _: torch.zeros(3), r"has no tensors by name, but one tensor \(3,\); save a state_dict"),
        (lambda _: 3, "has no tensors by name, but a value of the type int; save"),
        (lambda _: {"fc.weight": None}, "has no tensors by name, but 'fc.weight'; save"),
        (lambda _: {}, "has no tensors by name, but nothing; save"),
        (lambda _: nn.Linear(1, 1), "has Python objects, such as a whole model"),
        (lambda state: {**named("q.", state), **named("k.", state)}, r"several networks \('q.…', 'k.…'\)"),
        (lambda state: {**state, "conv1.weight": None}, "'conv1.weight' should be .* found nothing"),
        (lambda state: {**state, "conv1.weight": state["conv1.weight"].int()}, r"found torch.int32"),
        (lambda state: {**state, "bn1.bias": state["bn1.bias"] / 0}, "'bn1.bias' has values that are NaN or"),
        (lambda state: {**state, "bn1.running_var": state["bn1.running_var"] / 0}, "'bn1.running_var' has"),
    ],
)
def test_what_holds_no_weights_says_what_it_holds(
    tmp_path: Path, state: State, form: Form, message: str
) -> None:
    torch.save(form(state), tmp_path / "weights.pth")
    with pytest.raises(MacError, match=f"model.weights: .*weights.pth: .*{message}"):
        build(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page; download the file itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS, .*; run 'git lfs pull'",
        ),
        (b'{"error": 1}', "is JSON text"),
        (b"", "is empty; copy or download it again"),
        (b"Quota exceeded", "is neither a safetensors file nor one of torch.save"),
        (b"PK\x03\x04 cut", "cannot be read"),
    ],
)
def test_a_file_that_is_something_else_says_what(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(MacError, match=f"model.weights: .*weights.pth: {message}"):
        build(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("weights", "is_file"),
    [("none", False), ("IMAGENET1K_V1", False), ("DEFAULT", False), ("a.pth", True), ("a/b", True)],
)
def test_a_file_has_a_suffix_or_a_folder(weights: str, is_file: bool) -> None:
    assert (weights_file(weights) is not None) == is_file


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(
        MacError, match="has Python objects, such as a whole model, which may run any code; save a"
    ):
        build(tmp_path / "weights.pth")
    assert not (tmp_path / "owned").exists()


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "r50.safetensors")
    message = r"r50.safetensors: 'layer1.0.conv1.weight' should be .* of another architecture"
    with pytest.raises(MacError, match=message):
        build(tmp_path / "r50.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "r50.safetensors").read_bytes()[:1000])
    with pytest.raises(MacError, match=r"cut.safetensors: cannot be read"):
        build(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("IMAGENET", r"model.weights: 'IMAGENET' is neither none, nor .*IMAGENET1K_V1"),
        ("missing.pth", "model.weights: missing.pth: no such file or directory"),
    ],
)
def test_unknown_weights_are_one_line(weights: str, message: str) -> None:
    with pytest.raises(MacError, match=message):
        build(weights)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(MacError, match="model.architecture: 'resnet19' is not a torchvision model"):
        torchvision_network("resnet19", "none")


def test_without_a_network_a_local_file_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", no_network)
    with pytest.raises(MacError, match="IMAGENET1K_V1 of resnet18 could not be downloaded .* local file"):
        build("IMAGENET1K_V1")
