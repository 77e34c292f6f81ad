"""timm's networks: what is refused, what they were made for, and what their last block attends to."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network import classifier, timm_networks
from pipeline.network.published import torchvision_network
from pipeline.network.transformers import VisionTransformer
from pipeline.spec import DataConfig, Normalization

timm = pytest.importorskip("timm")

HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        ("timm/resnet19", "none", "model.architecture: timm has no 'resnet19'; it has resnet18, "),
        ("timm/qqqqqqqq", "none", "model.architecture: timm has no 'qqqqqqqq'$"),
        ("timm/resnet18.in22k", "none", "timm has no weights 'in22k' of resnet18; it has a1_in1k, "),
        ("timm/resnet18", "IMAGENET1K_V1", "'IMAGENET1K_V1' is neither none, nor pretrained, nor a file"),
        ("timm/cait_xxs24_224", "none", "reads its class token alone"),
        ("timm/deit_tiny_distilled_patch16_224", "none", "has several heads, head and head_dist"),
        ("timm/maxvit_tiny_tf_224", "none", "does not take 5 pixels"),
    ],
)
def test_what_cannot_be_used_is_one_line(architecture: str, weights: str, message: str) -> None:
    with pytest.raises(MacError, match=message) as error:
        classifier.build(architecture, 2, weights, input_size=5 if "maxvit" in architecture else 224)
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(
        MacError, match=r"could not be fetched \(no route to host\); give the path of a local"
    ):
        classifier.build("timm/resnet18", 2, "pretrained")


def test_without_timm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MacError, match=r"timm/resnet18 needs timm: pip install 'mac-robust\[networks\]'"):
        classifier.build("timm/resnet18", 2)


def test_what_a_network_was_made_for_is_timm_s() -> None:
    found = timm_networks.data_config("timm/tf_efficientnet_lite0")
    assert found == DataConfig(224, 256, "bicubic", HALF)
    assert classifier.data_config("timm/tf_efficientnet_lite0") == found
    assert classifier.data_config("resnet18") is None
    assert classifier.build("timm/tf_efficientnet_lite0", 2).trunk.normalization == HALF


def _attention(block: nn.Module, tokens: Tensor, heads: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention of a block by its formula, (B, heads, T, T)."""
    count, length, width = tokens.shape
    q, k, _ = (tokens @ weight.T + bias).view(count, length, 3, heads, width // heads).unbind(2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / (width // heads) ** 0.5
    return scores.softmax(-1)


def test_a_token_s_attention_is_that_of_the_formula() -> None:
    trunk = classifier.build("timm/vit_tiny_patch16_224", 2, input_size=64).trunk.eval().requires_grad_(False)
    x = torch.randn(2, 3, 64, 64)
    block = trunk.last
    weights = _attention(block, block.norm1(trunk.encode(x)), 3, block.attn.qkv.weight, block.attn.qkv.bias)
    expected = weights[:, :, 0, 1:].mean(1).view(2, 4, 4)
    torch.testing.assert_close(trunk.attention(x), expected)
    coarse = trunk.for_inference(torch.bfloat16).attention(x.bfloat16())
    torch.testing.assert_close(coarse, expected, rtol=0.05, atol=0.005)


def test_patches_attend_where_there_is_no_token_that_is_read() -> None:
    trunk = classifier.build("timm/vit_little_patch16_reg1_gap_256", 2, input_size=64).trunk
    trunk.eval().requires_grad_(False)
    x, kept = torch.randn(2, 3, 64, 64), list[Tensor]()
    block = trunk.network.blocks[-1]
    handle = block.attn.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    trunk.encode(x)
    handle.remove()
    q, k, _ = block.attn.qkv(kept[0]).unflatten(2, (3, block.attn.num_heads, -1)).unbind(2)
    q, k = block.attn.q_norm(q), block.attn.k_norm(k)
    weights = torch.einsum("bthd,bshd->bhts", q * block.attn.scale, k).softmax(-1)
    torch.testing.assert_close(trunk.attention(x), weights[:, :, 1:, 1:].mean((1, 2)).view(2, 4, 4))


def test_torchvision_s_token_attends_by_the_formula() -> None:
    network = torchvision_network("vit_b_32", "none", image_size=96)
    network.encoder.layers = network.encoder.layers[:2]
    trunk = VisionTransformer(network).eval().requires_grad_(False)
    x, attention = torch.randn(2, 3, 96, 96), trunk.last.self_attention
    tokens = trunk.last.ln_1(trunk.encode(x))
    weights = _attention(trunk.last, tokens, 12, attention.in_proj_weight, attention.in_proj_bias)
    torch.testing.assert_close(trunk.attention(x), weights[:, :, 0, 1:].mean(1).view(2, 3, 3))


def test_no_attention_in_a_network_of_convolutions() -> None:
    x = torch.zeros(1, 3, 32, 32)
    for architecture in ("resnet18", "timm/resnet10t"):
        assert classifier.build(architecture, 2).trunk.eval().attention(x) is None
