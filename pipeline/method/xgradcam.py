"""xGradCAM (Fu et al. 2020, "Axiom-based Grad-CAM"), without a backward pass where the layer is the trunk's last.

    w_k = Σ_xy (G ∘ A_k) / (Σ_xy A_k + ε),   map = Σ_k w_k A_k,   G = ∂ logit_target / ∂ A_k

The map is raw: neither rectified nor scaled. Same definition (and ε) as `XGradCAM` in the grad-cam package.
"""

import torch
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network.backbone import Classifier

EPSILON = 1e-7


def closed_form(activations: Tensor, head_weight: Tensor, target: Tensor) -> Tensor:
    """The map of the trunk's last activations. With a linear head on their mean, G_k = W[target, k] / (h·w) everywhere.

    Args:
        activations: A (B, C, h, w).
        head_weight: W (classes, C).
        target: (B,) int64 class of each map.

    Returns:
        (B, h, w) float32.
    """
    maps = activations.float()
    total = maps.sum((2, 3))  # (B, C)
    weight = head_weight.float()[target] / (maps.shape[2] * maps.shape[3]) * total / (total + EPSILON)
    return torch.einsum("bc,bchw->bhw", weight, maps)


def per_feature(activations: Tensor) -> Tensor:
    """What each feature adds to the map of a head that weighs it 1: `closed_form(A, W, t)` = Σ_k W[t, k] · `per_feature(A)`_k.

    Args:
        activations: A (B, C, h, w).

    Returns:
        (B, C, h, w) float32.
    """
    maps = activations.float()
    total = maps.sum((2, 3), keepdim=True)
    return maps * (total / (total + EPSILON) / (maps.shape[2] * maps.shape[3]))


def find_layer(model: Classifier, layer: str) -> nn.Module:
    """The trunk's module of that dotted name.

    Raises:
        MacError: there is none.
    """
    try:
        return model.trunk.get_submodule(layer)
    except AttributeError:
        names = ", ".join(name for name, _ in model.trunk.named_children())
        raise MacError(f"saliency.layer: the trunk has no layer '{layer}' (its outermost layers: {names})") from None


def by_autograd(model: Classifier, x: Tensor, target: Tensor, layer: str) -> Tensor:
    """The map of any layer of the trunk, by a backward pass.

    Args:
        x: (B, 3, H, W) normalised input.
        target: (B,) int64.
        layer: dotted module name inside the trunk, e.g. `layer3` or `features.14`.

    Returns:
        (B, h, w) float32.

    Raises:
        MacError: no such layer, or its output is not (B, C, h, w).
    """
    module = find_layer(model, layer)
    kept: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: Tensor) -> Tensor:
        # A copy goes on, for a following in-place ReLU would overwrite what is kept.
        kept.append(output)
        return output.clone()

    handle = module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(x.requires_grad_())
            activations = kept[0]
            (gradient,) = torch.autograd.grad(logits.float().gather(1, target[:, None]).sum(), activations)
    finally:
        handle.remove()
    if activations.ndim != 4:
        raise MacError(f"saliency.layer: '{layer}' puts out {tuple(activations.shape)}, not (batch, channels, height, width)")
    maps, gradient = activations.detach().float(), gradient.float()
    weight = (gradient * maps).sum((2, 3)) / (maps.sum((2, 3)) + EPSILON)
    return torch.einsum("bc,bchw->bhw", weight, maps)
