import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from pipeline.errors import MacError
from pipeline.method import gradient_maps
from pipeline.method.gradient_maps import GradientMap
from pipeline.network import classifier
from pipeline.network.backbone import Backbone
from pipeline.network.classifier import Classifier
from tests.networks import Tokens, settled

ARCHITECTURES = (
    *("resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5"),
    *("regnet_x_400mf", "efficientnet_b0", "squeezenet1_1"),
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Classifier:
    return settled(request.param)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(2))


TARGET = torch.tensor([0, 2, 1, 1])


def of_head(model: Classifier, x: Tensor, method: GradientMap | None = None) -> Tensor:
    with torch.no_grad():
        return gradient_maps.of_head(model.trunk, model.encode(x), model.head.weight, TARGET, method)


@pytest.fixture(params=["xgradcam", "hirescam"])
def method(request: pytest.FixtureRequest) -> GradientMap:
    found: GradientMap = request.param
    return found


def test_closed_form_equals_autograd(model: Classifier, x: Tensor, method: GradientMap) -> None:
    last = [name for name, _ in model.trunk.named_children()][-1]
    expected = gradient_maps.by_autograd(model, x, TARGET, last, method)
    found = of_head(model, x, method)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


@pytest.mark.filterwarnings("ignore")
def test_closed_form_equals_the_gradient_in_float64(
    model: Classifier, x: Tensor, method: GradientMap
) -> None:
    """The fast way is the one for every network, to 1e-8; it is what tests may hold others against."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        state = model.encode(x.double())
        weight = model.head.weight
        fast = gradient_maps.closed_form(state, weight, TARGET, method)
        every = gradient_maps.per_feature(model.trunk, state, method)
        assert torch.equal(gradient_maps.of_head(model.trunk, state, weight, TARGET, method), fast)
        model.trunk.mean_pooled = False  # as if nothing were known of its pooling
        slow = gradient_maps.of_head(model.trunk, state, weight, TARGET, method)
        assert fast.dtype == slow.dtype == torch.float64
        assert (fast - slow).abs().max() <= 1e-8 * fast.abs().max()
        some = slice(None, 16)
        few = gradient_maps.per_feature(_Some(model.trunk, some), state, method)
        assert (few - every[:, some]).abs().max() <= 1e-8 * every.abs().max()


class _Some:
    """A trunk that has some of its features alone."""

    mean_pooled = False

    def __init__(self, trunk: Backbone, some: slice) -> None:
        self.grid = trunk.grid
        self.pool = lambda state: trunk.pool(state)[:, some]


def test_closed_form_equals_the_grad_cam_package(model: Classifier, x: Tensor) -> None:
    """The package puts out rectified maps, scaled to [0, 1], then resized to the input and scaled again."""
    with XGradCAM(model=model, target_layers=[model.trunk]) as package:
        expected = package(input_tensor=x, targets=[ClassifierOutputTarget(int(t)) for t in TARGET])
    import cv2

    def scaled(picture: np.ndarray) -> np.ndarray:
        picture = picture - picture.min()
        return np.asarray(picture / (1e-7 + picture.max()))

    raw = of_head(model, x, "xgradcam").numpy()
    found = np.stack([scaled(cv2.resize(scaled(np.maximum(m, 0)), (96, 96))) for m in raw])
    # Where a whole map is below 1e-6 the package's own 1e-7 in the scaling decides.
    big = raw.max((1, 2)) > 1e-4
    np.testing.assert_allclose(found[big], expected[big], atol=2e-4)


def test_autograd_takes_an_inner_layer_and_equals_the_formula(x: Tensor) -> None:
    model = settled("resnet18")
    with torch.enable_grad():
        inner = x
        for name, child in model.trunk.named_children():
            inner = child(inner)
            if name == "layer3":
                break
        inner = inner.detach().requires_grad_()
        logits = model.head(model.trunk.layer4(inner).mean((2, 3)))
        (gradient,) = torch.autograd.grad(logits[torch.arange(4), TARGET].sum(), inner)
    inner = inner.detach()
    weight = (gradient * inner).sum((2, 3)) / (inner.sum((2, 3)) + 1e-7)
    expected = (weight[:, :, None, None] * inner).sum(1)
    found = gradient_maps.by_autograd(model, x, TARGET, "layer3", "xgradcam")
    assert found.shape == (4, 6, 6)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_autograd_works_where_the_parameters_are_frozen_and_gradients_are_off(x: Tensor) -> None:
    model = settled("resnet18")
    expected = gradient_maps.by_autograd(model, x, TARGET, "layer3", "xgradcam")
    with torch.no_grad():
        found = gradient_maps.by_autograd(
            model.requires_grad_(False), x.clone(), TARGET, "layer3", "xgradcam"
        )
    assert torch.equal(found, expected)


def test_an_unknown_layer_is_named(x: Tensor) -> None:
    with pytest.raises(MacError, match=r"no layer 'layer9' \(its outermost layers: conv1, bn1, .*layer4\)"):
        gradient_maps.by_autograd(settled("resnet18"), x, TARGET, "layer9", "xgradcam")


@pytest.fixture(scope="module")
def convnext_model() -> Classifier:
    """In float64. Its layers are scaled so that all blocks add to what it computes."""
    torch.manual_seed(3)
    model = classifier.build("convnext_tiny", 3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                parameter.fill_(0.5)
        model.trunk.norm.weight.uniform_(0.5, 1.5)
    return model.double().eval().requires_grad_(False)


def test_another_readout_has_the_map_of_the_whole_network_s_gradient(
    convnext_model: Classifier, x: Tensor
) -> None:
    x, target, trunk, head = x[:2].double(), TARGET[:2], convnext_model.trunk, convnext_model.head.weight
    expected = gradient_maps.by_autograd(convnext_model, x.clone(), target, "features", "xgradcam")
    state = convnext_model.encode(x)
    found = gradient_maps.of_head(trunk, state, head, target, "xgradcam")
    assert found.shape == (2, 3, 3)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    as_if_pooled = gradient_maps.closed_form(state, head, target, "xgradcam")
    assert (as_if_pooled - expected).abs().max() > 0.01 * expected.abs().max()


def test_features_add_up_to_the_map_of_any_head(convnext_model: Classifier, x: Tensor) -> None:
    with torch.no_grad():
        state = convnext_model.encode(x[:2, :, :64, :64].double())
        every = gradient_maps.per_feature(convnext_model.trunk, state)
    assert every.shape == (2, 768, 2, 2)
    for head in (convnext_model.head.weight, torch.randn_like(convnext_model.head.weight)):
        expected = gradient_maps.of_head(convnext_model.trunk, state, head, TARGET[:2])
        found = torch.einsum("bd,bdhw->bhw", head[TARGET[:2]], every)
        assert (found - expected).abs().max() <= 1e-8 * expected.abs().max()


def test_features_add_up_where_they_are_means(model: Classifier, x: Tensor) -> None:
    with torch.no_grad():
        every = gradient_maps.per_feature(model.trunk, model.encode(x))
        found = torch.einsum("bd,bdhw->bhw", model.head.weight[TARGET], every)
    expected = of_head(model, x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


def test_tokens_are_seen_as_maps_without_the_class_token(x: Tensor) -> None:
    torch.manual_seed(4)
    model = Classifier(Tokens(), 3).double()
    with torch.enable_grad():
        state = model.encode(x[..., :32, :32].double()).detach().requires_grad_()
        logits = model.head(model.trunk.pool(state))
        (gradient,) = torch.autograd.grad(logits[torch.arange(4), TARGET].sum(), state)
    patches, of_patches = state.detach()[:, 1:], gradient[:, 1:]
    weight = (of_patches * patches).sum(1) / (patches.sum(1) + 1e-7)
    expected = (patches * weight[:, None]).sum(2).view(4, 4, 4)
    found = of_head(model, x[..., :32, :32].double(), "xgradcam")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    every = gradient_maps.per_feature(model.trunk, state, "xgradcam")
    found = torch.einsum("bd,bdhw->bhw", model.head.weight[TARGET], every)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet18", "xgradcam"),
        ("mobilenet_v2", "xgradcam"),
        ("efficientnet_b0", "hirescam"),
        ("mobilenet_v3_small", "hirescam"),
        ("convnext_tiny", "hirescam"),
    ],
)
def test_the_map_that_suits_a_network(architecture: str, expected: GradientMap) -> None:
    trunk = classifier.build(architecture, 2).trunk.eval().requires_grad_(False)
    assert gradient_maps.suited(trunk) == expected
    is_rectified = bool((trunk.encode(torch.randn(2, 3, 64, 64)) >= 0).all())
    assert is_rectified == (expected == "xgradcam")
    assert gradient_maps.suited(trunk.for_inference(torch.bfloat16)) == expected


def test_maps_are_float32_whatever_the_trunk_computes_in(x: Tensor) -> None:
    model = settled("squeezenet1_1")
    with torch.no_grad():
        state = model.encode(x)
        fine = gradient_maps.of_head(model.trunk, state, model.head.weight, TARGET)
        coarse = gradient_maps.of_head(model.trunk, state.bfloat16(), model.head.weight, TARGET)
    assert fine.dtype == coarse.dtype == torch.float32
    assert (fine - coarse).abs().max() < 0.02 * fine.abs().max()


def test_a_layer_that_puts_out_no_maps_is_named(x: Tensor) -> None:
    model = Classifier(Tokens(), 3)
    message = r"saliency.layer: 'key' puts out \(4, 17, 12\), not \(batch, channels"
    with pytest.raises(MacError, match=message):
        gradient_maps.by_autograd(model, x[..., :32, :32], TARGET, "key", "xgradcam")
