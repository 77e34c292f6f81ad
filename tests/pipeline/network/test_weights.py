import hashlib
import re
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.published import torchvision_network
from pipeline.network.weights import digests, fill, weights_file

State = dict[str, Tensor]
Form = Callable[[State], Any]


ARCHITECTURE = "shufflenet_v2_x0_5"


def build(weights: Path | str, architecture: str = ARCHITECTURE, key: str = "model.weights") -> nn.Module:
    file = weights_file(str(weights))
    network = torchvision_network(architecture, "none" if file else str(weights))
    if file:
        fill(network, file, "classifier" if architecture.startswith("densenet") else "fc", key)
    return network


@pytest.fixture(scope="module")
def state() -> State:
    return torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()


def named(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def changed(state: State) -> State:
    return {**state, "conv1.0.weight": state["conv1.0.weight"] + 1}


def in_parts(state: State) -> State:
    """The names in `nn.Sequential(*network.children())`, without the head."""
    parts = [name for name, _ in torchvision_network(ARCHITECTURE, "none").named_children()]
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    names = {name: name.partition(".") for name in trunk}
    return {f"features.{parts.index(names[name][0])}.{names[name][2]}": trunk[name] for name in trunk}


def holding_itself(state: State) -> dict[str, Any]:
    whole: dict[str, Any] = {"model": state}
    return whole | {"whole": whole, "again": [whole]}


def test_weights_from_a_pth_file(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "weights.pth")
    found = build(tmp_path / "weights.pth").state_dict()
    for name in state:
        assert torch.equal(found[name], state[name]) == (not name.startswith("fc.")), name


def test_the_head_may_be_missing_or_of_other_classes(tmp_path: Path, state: State) -> None:
    save_file({**state, "fc.weight": torch.zeros(7, 1024)}, tmp_path / "seven.safetensors")
    save_file({k: v for k, v in state.items() if "fc." not in k}, tmp_path / "none.safetensors")
    for file in ("seven.safetensors", "none.safetensors"):
        assert torch.equal(build(tmp_path / file).conv1[0].weight, state["conv1.0.weight"])


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda state: {"state_dict": named("module.", state)}, "['state_dict'], names that begin with 'mod"),
        (lambda state: {"model": state}, "took the state dict in ['model']"),
        (lambda state: {"net": named("_orig_mod.module.", state)}, "begin with '_orig_mod.module.'"),
        (
            lambda state: {"state_dict": named("model.", state), "queue": torch.zeros(2)},
            "begin with 'model.'",
        ),
        (lambda state: {"epoch": 3, "model": {"state_dict": state}}, "['model']['state_dict']"),
        (lambda state: {**named("trunk.", state), "head.weight": torch.zeros(2, 1024)}, "with 'trunk.'"),
        (lambda state: {name: tensor.double() for name, tensor in state.items()}, ""),
        (lambda state: {"ema": dict(state), "model": {k: v.clone() for k, v in state.items()}}, "['ema']"),
        (lambda state: {"state_dict": state, "args": Namespace(lr=1), "best": np.float64(1)}, "state_dict"),
        (lambda state: {"state_dict": state, "at": datetime(2020, 1, 1), "path": Path("x")}, "state_dict"),
        (in_parts, "names that begin with 'features.'"),
        (holding_itself, "['model']"),
    ],
)
def test_weights_in_a_checkpoint(
    tmp_path: Path, state: State, form: Form, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(form(state), tmp_path / "weights.ckpt")
    network = torchvision_network(ARCHITECTURE, "none")
    with caplog.at_level("INFO", logger="mac"):
        fill(network, tmp_path / "weights.ckpt", head="fc").log()
    found = network.state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state if not key.startswith("fc."))
    assert said in caplog.text
    assert len(caplog.records) == bool(said)


def test_counts_beside_the_weights_are_left_out(tmp_path: Path, state: State) -> None:
    counts = {"stage2.0.total_ops": torch.ones(1), "conv1.total_params": torch.ones(1)}
    torch.save({**state, **counts}, tmp_path / "weights.pth")
    found = fill(torchvision_network(ARCHITECTURE, "none"), tmp_path / "weights.pth", head="fc")
    assert set(found.others) == {"fc.weight", "fc.bias"}


def test_what_a_network_computes_itself_is_left_out(tmp_path: Path) -> None:
    network = classifier.builder("timm/swin_tiny_patch4_window7_224")
    made = network("timm/swin_tiny_patch4_window7_224", "none", 224)
    # timm's published files have these, and its networks of today do not save them
    computed = {name: each.clone() for name, each in made.module.named_buffers()}
    assert any("relative_position_index" in name for name in computed)
    save_file({**made.module.state_dict(), **computed}, tmp_path / "weights.safetensors")
    found = fill(made.module, tmp_path / "weights.safetensors", made.head)
    assert set(found.others) == {"head.fc.weight", "head.fc.bias"}


def test_layer_scale_and_tokens_of_another_transformer_are_named(tmp_path: Path) -> None:
    made = classifier.builder("timm/vit_tiny_patch16_224")("timm/vit_tiny_patch16_224", "none", 224)
    for name in ("blocks.3.ls1.gamma", "reg_token"):
        save_file({**made.module.state_dict(), name: torch.ones(1, 4, 192)}, tmp_path / "w.safetensors")
        with pytest.raises(MacError, match=f"has '{name}', and this network has no tensor of that name"):
            fill(made.module, tmp_path / "w.safetensors", made.head)


@pytest.mark.parametrize(
    ("architecture", "head", "missing", "last"),
    [
        ("mobilenet_v3_small", nn.Linear(576, 2), "'classifier.0.weight', 'classifier.0.bias'", "3"),
        (
            "convnext_tiny",
            nn.Sequential(nn.Flatten(), nn.Linear(768, 2)),
            "'classifier.0.weight', 'classifier.0.bias'",
            "2",
        ),
    ],
)
def test_a_replaced_part_before_the_head_is_named(
    tmp_path: Path, architecture: str, head: nn.Module, missing: str, last: str
) -> None:
    network = torchvision_network(architecture, "none")
    network.classifier = head
    torch.save({"model": named("module.", network.state_dict())}, tmp_path / "own.pth")
    message = (
        f"without {missing}; the part before the head seems to be replaced; only 'classifier.{last}' may be"
    )
    with pytest.raises(MacError, match=message):
        fill(torchvision_network(architecture, "none"), tmp_path / "own.pth", f"classifier.{last}")


def test_digests_are_of_files_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"a")
    (tmp_path / "b.pth").write_bytes(b"b")
    sha = {name: hashlib.sha256(name.encode()).hexdigest() for name in "ab"}
    start, own = str(tmp_path / "a.pth"), str(tmp_path / "b.pth")
    assert digests(start, own) == {"weights": sha["a"], "classifier": sha["b"]}
    assert digests(start, None) == {"weights": sha["a"]}
    assert digests("IMAGENET1K_V1", own) == {"classifier": sha["b"]}


@pytest.mark.parametrize("number", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(tmp_path: Path, state: State, number: torch.dtype) -> None:
    half = {name: each.to(number) if each.is_floating_point() else each for name, each in state.items()}
    torch.save(half, tmp_path / "half.bin")
    found = build(tmp_path / "half.bin").conv1[0].weight
    assert torch.equal(found, half["conv1.0.weight"].float())


def test_torchvision_s_published_densenets_have_names_of_an_earlier_version(tmp_path: Path) -> None:
    new = torchvision.models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", name): new[name] for name in new}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121.pth")
    found = build(tmp_path / "densenet121.pth", "densenet121").state_dict()
    assert all(torch.equal(found[name], new[name]) for name in new if "classifier" not in name)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda _: torch.zeros(3), r"has no tensors by name, but one tensor \(3,\); save a state_dict"),
        (lambda _: 3, "has no tensors by name, but a value of the type int; save"),
        (lambda _: None, "has no tensors by name, but a value of the type NoneType; save"),
        (lambda _: {"fc.weight": None}, "has no tensors by name, but 'fc.weight'; save"),
        (lambda _: {}, "has no tensors by name, but nothing; save"),
        (lambda _: nn.Linear(1, 1), "has no tensors by name, but Python objects, such as a whole model"),
        (lambda _: {"model": nn.ReLU(), "epoch": 1}, "but Python objects, such as a whole model"),
        (
            lambda state: {**named("q.", state), **named("k.", changed(state))},
            r"several networks that differ \('q.…', 'k.…'\); save the one that you mean, alone",
        ),
        (
            lambda state: {"state_dict": state, "state_dict_ema": changed(state)},
            r"several networks that differ \(\['state_dict'\], \['state_dict_ema'\]\)",
        ),
        (lambda state: {**state, "conv1.0.weight": None}, "'conv1.0.weight' should be .* found nothing"),
        (lambda state: {**state, "conv1.0.weight": state["conv1.0.weight"].int()}, r"found torch.int32"),
        (
            lambda state: {**state, "conv1.1.bias": state["conv1.1.bias"] / 0},
            "'conv1.1.bias' has values",
        ),
        (
            lambda state: {**state, "stage2.9.branch2.0.weight": torch.ones(2)},
            "has 'stage2.9.branch2.0.weight', and this network has no tensor of",
        ),
        (
            lambda state: {**state, "stage2.0.branch1.0.bias": torch.ones(24)},
            "has 'stage2.0.branch1.0.bias', and this network has no tensor of that name",
        ),
        (
            lambda state: {name: each for name, each in state.items() if "stage4.3" not in name},
            "without 'stage4.3.branch2.0.weight', .* in all\\); the file is of another architecture",
        ),
        (
            lambda state: {**state, "conv1.0.weight": state["conv1.0.weight"].to("meta")},
            "'conv1.0.weight' has a shape and no values",
        ),
        (
            lambda state: {**state, "conv1.0.weight": state["conv1.0.weight"].to_sparse()},
            r"'conv1.0.weight' is sparse \(torch.sparse_coo\); save its to_dense",
        ),
        (
            lambda state: {"model": named("net.", {name[1:]: each for name, each in state.items()})},
            r"names: wanted 'conv1.0.weight', .*, … \(280 in all\); found 'net.onv1.0.weight', .* in \['mod",
        ),
    ],
)
@pytest.mark.parametrize("key", ["model.weights", "model.classifier"])
def test_what_holds_no_weights_says_what_it_holds(
    tmp_path: Path, state: State, form: Form, message: str, key: str
) -> None:
    torch.save(form(state), tmp_path / "weights.pth.tar")
    with pytest.raises(MacError, match=f"{key}: .*weights.pth.tar: .*{message}"):
        build(tmp_path / "weights.pth.tar", key=key)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page; download the file itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS, .*; run 'git lfs pull'",
        ),
        (b'{"error": 1}', "is JSON text"),
        (b"../../pipeline/weights.pth", "is the text of a link, .*; copy the file that it names"),
        (b"", "is empty; copy or download it again"),
        (b"Quota exceeded", "is neither a safetensors file nor one of torch.save"),
        (b"PK\x03\x04 cut", "is cut off; copy or download it again"),
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

    torch.save({"conv1.0.weight": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(MacError, match="has Python objects, such as a whole model, which may run any code"):
        build(tmp_path / "weights.pth")
    assert not (tmp_path / "owned").exists()


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "r50.safetensors")
    message = r"r50.safetensors: 'layer1.0.conv1.weight' should be .* of another architecture"
    with pytest.raises(MacError, match=message):
        build(tmp_path / "r50.safetensors", "resnet18")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "r50.safetensors").read_bytes()[:1000])
    with pytest.raises(MacError, match=r"cut.safetensors: cannot be read"):
        build(tmp_path / "cut.safetensors", "resnet18")


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
    with pytest.raises(
        MacError, match="IMAGENET1K_V1 of shufflenet_v2_x0_5 could not be downloaded .* local file"
    ):
        build("IMAGENET1K_V1")
