"""Maps of the grad-cam package: ours, rectified and scaled, are what the package itself returns."""

import sys

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from pipeline.errors import MacError
from pipeline.method.package_cams import CLASSES, raw_maps
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.project import Project
from tests.networks import Tokens
from tests.pipeline.steps import untrained


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier.build("squeezenet1_1", 3, seed=1).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Each map in [0, 1], as the package scales them."""
    low = maps.flatten(1).amin(1)[:, None, None]
    return (maps - low) / (1e-7 + (maps - low).flatten(1).amax(1)[:, None, None])


@pytest.mark.parametrize("method", CLASSES)
@pytest.mark.parametrize("layer", ["last", "features.6"])
def test_the_package_s_own_map(
    model: Classifier, x: torch.Tensor, method: str, layer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = torch.tensor([2, 0])
    found = raw_maps(method, model, x, target, layer)
    assert capsys.readouterr().err == ""  # Score-CAM's own progress bars
    module = model.trunk if layer == "last" else model.trunk.get_submodule(layer)
    targets = [ClassifierOutputTarget(int(c)) for c in target]
    with getattr(pytorch_grad_cam, CLASSES[method])(model, [module]) as package:
        expected = torch.from_numpy(package(x.clone().requires_grad_(), targets))
    assert found.shape[-1] < 64
    maps = scaled(found.relu())[:, None]
    resized = F.interpolate(maps, (64, 64), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(scaled(resized), scaled(expected), atol=2e-3, rtol=0)
    assert found.std() > 0


def test_tokens_are_handed_over_as_maps(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model, target = Classifier(Tokens(), 3), torch.tensor([2, 0])
    x = x[..., :32, :32]
    found = raw_maps("gradcam", model, x, target, "last")
    state = model.encode(x).detach().requires_grad_()
    logits = model.head(model.trunk.pool(state))
    (gradient,) = torch.autograd.grad(logits[[0, 1], target].sum(), state)
    weight = model.trunk.grid(gradient).mean((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weight, model.trunk.grid(state.detach()))
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return untrained.write_project(tmp_path_factory.mktemp("project"))


# Score-CAM makes 1,024 forward passes for each image.
@pytest.mark.parametrize("method", [method for method in CLASSES if method != "scorecam"])
def test_a_method_of_the_package_makes_masks(project: Project, method: str) -> None:
    untrained.make_masks(project, method=method, precision="bfloat16")
    with project.open("masks") as given:
        assert (given.file("masks")["mask"][:].sum((1, 2)) == round(0.3 * 64 * 64)).all()
        assert np.isfinite(given.file("masks")["cam"][:]).all()


def test_without_the_package_there_is_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    message = r"saliency.method: layercam needs the grad-cam package: pip install 'mac-robust\[cams\]'"
    with pytest.raises(MacError, match=message):
        untrained.make_masks(project, method="layercam")
