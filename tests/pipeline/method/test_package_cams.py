"""Maps of the grad-cam package: ours, rectified and scaled, are what the package itself returns."""

import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from pipeline import store
from pipeline.errors import MacError
from pipeline.method.package_cams import CLASSES, raw_maps
from pipeline.network import backbone
from tests.conftest import Project


@pytest.fixture(scope="module")
def model() -> backbone.Classifier:
    return backbone.build("squeezenet1_1", 3, seed=1).eval().requires_grad_(False)


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
    model: backbone.Classifier, x: torch.Tensor, method: str, layer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = torch.tensor([2, 0])
    found = raw_maps(method, model, x, target, layer)
    assert capsys.readouterr().err == ""  # Score-CAM's own progress bars
    module = model.trunk if layer == "last" else model.trunk.get_submodule(layer)
    with getattr(pytorch_grad_cam, CLASSES[method])(model, [module]) as package:
        expected = torch.from_numpy(package(x.clone().requires_grad_(), [ClassifierOutputTarget(int(c)) for c in target]))
    assert found.shape[-1] < 64
    resized = F.interpolate(scaled(found.relu())[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(scaled(resized), scaled(expected), atol=2e-3, rtol=0)
    assert found.std() > 0


@pytest.mark.parametrize("method", [method for method in CLASSES if method != "scorecam"])  # 1,024 forward passes an image
def test_a_method_of_the_package_makes_masks(project: Project, method: str) -> None:
    project.set(saliency__method=method, saliency__precision="bfloat16")
    project.succeed("saliency")
    with store.open_artefact(project.data / "masks.h5", "masks") as masks:
        assert (masks["mask"][:].sum((1, 2)) == round(0.3 * 64 * 64)).all()
        assert np.isfinite(masks["cam"][:]).all()


def test_without_the_package_there_is_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    project.set(saliency__method="layercam")
    assert "saliency.method: layercam needs the grad-cam package: pip install 'mac-robust[cams]'" in project.fail("saliency")


def test_an_unknown_layer_is_named(model: backbone.Classifier, x: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(MacError, match="saliency.layer: the trunk has no layer 'layer9'"):
        raw_maps("gradcam", model, x, torch.tensor([0, 1]), "layer9")
