import numpy as np
import pytest
import torch
from pytorch_grad_cam import XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from pipeline.errors import MacError
from pipeline.method import xgradcam
from pipeline.network import backbone

ARCHITECTURES = ("resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "regnet_x_400mf", "efficientnet_b0", "squeezenet1_1")


def trained_looking(architecture: str) -> backbone.Classifier:
    """A random network with running statistics, so that its maps are neither zero nor huge."""
    model = backbone.build(architecture, 3, seed=1)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> backbone.Classifier:
    return trained_looking(request.param)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(2))


TARGET = torch.tensor([0, 2, 1, 1])


def closed_form(model: backbone.Classifier, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return xgradcam.closed_form(model.activations(x), model.head.weight, TARGET)


def test_closed_form_equals_autograd(model: backbone.Classifier, x: torch.Tensor) -> None:
    last = [name for name, _ in model.trunk.named_children()][-1]
    expected = xgradcam.by_autograd(model, x, TARGET, last)
    found = closed_form(model, x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


@pytest.mark.filterwarnings("ignore")
def test_closed_form_equals_the_grad_cam_package(model: backbone.Classifier, x: torch.Tensor) -> None:
    """The package puts out rectified maps, scaled to [0, 1] and again after resizing (here to the size of the input)."""
    with XGradCAM(model=model, target_layers=[model.trunk]) as package:
        expected = package(input_tensor=x, targets=[ClassifierOutputTarget(int(t)) for t in TARGET])
    import cv2

    def scaled(picture: np.ndarray) -> np.ndarray:
        picture = picture - picture.min()
        return np.asarray(picture / (1e-7 + picture.max()))

    raw = closed_form(model, x).numpy()
    found = np.stack([scaled(cv2.resize(scaled(np.maximum(m, 0)), (96, 96))) for m in raw])
    # Where a whole map is below 1e-6 the package's own 1e-7 in the scaling decides.
    big = raw.max((1, 2)) > 1e-4
    np.testing.assert_allclose(found[big], expected[big], atol=2e-4)


def test_autograd_takes_an_inner_layer_and_equals_the_formula(x: torch.Tensor) -> None:
    model = trained_looking("resnet18")
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
    found = xgradcam.by_autograd(model, x, TARGET, "layer3")
    assert found.shape == (4, 6, 6)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_autograd_works_where_the_parameters_are_frozen_and_gradients_are_off(x: torch.Tensor) -> None:
    model = trained_looking("resnet18")
    expected = xgradcam.by_autograd(model, x, TARGET, "layer3")
    with torch.no_grad():
        found = xgradcam.by_autograd(model.requires_grad_(False), x.clone(), TARGET, "layer3")
    assert torch.equal(found, expected)


def test_an_unknown_layer_is_named(x: torch.Tensor) -> None:
    with pytest.raises(MacError, match=r"no layer 'layer9' \(its outermost layers: conv1, bn1, .*layer4\)"):
        xgradcam.by_autograd(trained_looking("resnet18"), x, TARGET, "layer9")
