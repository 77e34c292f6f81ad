"""Other class activation maps, by the optional grad-cam package (Gildenblat et al.)."""

import contextlib
import io

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import MacError
from pipeline.method.gradient_maps import find_layer
from pipeline.network.classifier import Classifier

# The package's class for each method.
CLASSES = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "scorecam": "ScoreCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}


def raw_maps(method: str, model: Classifier, x: Tensor, target: Tensor, layer: str) -> Tensor:
    """The package's map before it is rectified, scaled and resized. It is in float32, under autocast too.

    Args:
        method: one of CLASSES.
        x: (B, 3, H, W) normalised input.
        target: (B,) int64, the class that each map explains.
        layer: `last` for the output of the trunk, or the name of a module of the trunk.

    Returns:
        (B, h, w) float32.

    Raises:
        MacError: the package is not installed, or there is no such layer.
    """
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        raise MacError(
            f"saliency.method: {method} needs the grad-cam package: pip install 'mac-robust[cams]'"
        ) from None
    if method == "scorecam" and len(x) > 1:  # it needs one input for every channel of every image at once
        alone = [raw_maps(method, model, x[i : i + 1], target[i : i + 1], layer) for i in range(len(x))]
        return torch.cat(alone)
    module = model.trunk if layer == "last" else find_layer(model, layer)
    as_maps = model.trunk.grid if layer == "last" else None
    targets = [ClassifierOutputTarget(int(c)) for c in target]
    with (
        getattr(pytorch_grad_cam, CLASSES[method])(model, [module], as_maps) as cam,
        torch.enable_grad(),
        torch.autocast(x.device.type, enabled=False),
        contextlib.redirect_stderr(io.StringIO()),  # Score-CAM draws a progress bar for every image
    ):
        x = x.detach().float().requires_grad_(cam.uses_gradients)
        outputs = cam.activations_and_grads(x)
        if cam.uses_gradients:
            sum(t(output) for t, output in zip(targets, outputs, strict=True)).backward()
        activations = cam.activations_and_grads.activations[0].numpy()
        gradients = cam.activations_and_grads.gradients[0].numpy() if cam.uses_gradients else None
        maps = cam.get_cam_image(x, module, targets, activations, gradients, False)
    return torch.from_numpy(np.asarray(maps, np.float32)).to(x.device)
