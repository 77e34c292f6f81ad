"""xGradCAM and HiResCAM, without a backward pass through the trunk.

    xGradCAM (Fu et al. 2020, "Axiom-based Grad-CAM"):   map = Σ_k A_k · Σ_xy (G_k ∘ A_k) / (Σ_xy A_k + ε)
    HiResCAM (Draelos and Carin 2020):                   map = Σ_k G_k ∘ A_k

A is the output of the trunk (its state) as maps, and G = ∂ logit_target / ∂ A. So for any network, G is the
gradient of head(pool(state)) only. If `pool` is the mean, G is known without a backward pass, and the two
maps are equal up to ε. xGradCAM divides by the sum of the activations, which can be near zero if they have
both signs; HiResCAM does not. Maps are raw: not rectified and not scaled. The definitions and ε are those of
`XGradCAM` and `HiResCAM` in the grad-cam package.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import MacError
from pipeline.network.backbone import Backbone, State, at_least_float32
from pipeline.network.classifier import Classifier

EPSILON = 1e-7

GradientMap = Literal["xgradcam", "hirescam"]


def suited(trunk: Backbone) -> GradientMap:
    """The map that suits a trunk.

    xGradCAM, the paper's, if the features are means of maps without negative values; HiResCAM else.
    """
    return "xgradcam" if trunk.mean_pooled and trunk.rectified else "hirescam"


def of_head(
    trunk: Backbone, state: State, head_weight: Tensor, target: Tensor, method: GradientMap | None = None
) -> Tensor:
    """The map of the trunk's output, for a head W φ + b.

    Args:
        state: the output of `trunk.encode` for B images.
        head_weight: W (classes, D).
        target: (B,) int64, the class that each map explains.
        method: None for the one that is `suited`.

    Returns:
        (B, h, w) float32; float64 if the state is float64.
    """
    method = method or suited(trunk)
    if trunk.mean_pooled:
        return closed_form(state, head_weight, target, method)
    with torch.enable_grad():
        leaf = at_least_float32(state.detach()).requires_grad_()
        logit = trunk.pool(leaf) * head_weight.detach()[target]
        (gradient,) = torch.autograd.grad(logit.sum(), leaf)
    return _combined(trunk.grid(leaf.detach()), trunk.grid(gradient), method)


def closed_form(activations: Tensor, head_weight: Tensor, target: Tensor, method: GradientMap) -> Tensor:
    """The map if pooling is the mean of the last maps: then G_k = W[target, k] / (h·w) everywhere.

    `of_head` uses this where it can. The gradient gives the same map, to 1e-8 in float64.

    Args:
        activations: A (B, D, h, w).
        head_weight: W (classes, D).
        target: (B,) int64, the class that each map explains.

    Returns:
        (B, h, w) float32; float64 if the activations are float64.
    """
    maps = at_least_float32(activations)
    weight = head_weight.to(maps.dtype)[target] / (maps.shape[2] * maps.shape[3])
    if method == "xgradcam":
        total = maps.sum((2, 3))  # (B, D)
        weight = weight * total / (total + EPSILON)
    return torch.einsum("bc,bchw->bhw", weight, maps)


def per_feature(trunk: Backbone, state: State, method: GradientMap | None = None) -> Tensor:
    """The map of each feature alone, with the weight 1.

    The map of a head is a weighted sum of them: `of_head(trunk, state, W, t)` is
    Σ_d W[t, d] · `per_feature(trunk, state)`_d.

    Args:
        state, method: as in `of_head`.

    Returns:
        (B, D, h, w) float32; float64 if the state is float64.
    """
    method = method or suited(trunk)
    if trunk.mean_pooled:
        maps = at_least_float32(state)
        size = maps.shape[2] * maps.shape[3]
        if method == "hirescam":
            return maps / size
        total = maps.sum((2, 3), keepdim=True)
        return maps * (total / (total + EPSILON) / size)
    leaf = at_least_float32(state.detach()).requires_grad_()
    maps = trunk.grid(leaf.detach())
    with torch.enable_grad():
        # The sum over the images gives the gradient of each, because no features depend on another image.
        summed = trunk.pool(leaf).sum(0).unbind()
    found = []
    for feature in summed:
        (gradient,) = torch.autograd.grad(feature, leaf, retain_graph=True)
        found.append(_combined(maps, trunk.grid(gradient), method))
    return torch.stack(found, 1)


def by_autograd(model: Classifier, x: Tensor, target: Tensor, layer: str, method: GradientMap) -> Tensor:
    """The map of any layer of the trunk, by a backward pass.

    Args:
        x: (B, 3, H, W) normalised input.
        target: (B,) int64, the class that each map explains.
        layer: dotted module name inside the trunk, e.g. `layer3` or `features.14`.

    Returns:
        (B, h, w) float32; float64 if the model is float64.

    Raises:
        MacError: no such layer, or its output is not (B, C, h, w).
    """
    module = find_layer(model, layer)
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        # The next layer gets a copy: an in-place ReLU would overwrite what is kept.
        kept.append(output)
        return output.clone()

    handle = module.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = at_least_float32(model(x.requires_grad_()))
            activations = kept[0]
            (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), activations)
    finally:
        handle.remove()
    if activations.ndim != 4:
        shape = tuple(activations.shape)
        raise MacError(f"saliency.layer: '{layer}' puts out {shape}, not (batch, channels, height, width)")
    return _combined(activations.detach(), gradient, method)


def find_layer(model: Classifier, layer: str) -> nn.Module:
    """The module of the trunk with this dotted name.

    Raises:
        MacError: there is none.
    """
    try:
        return model.trunk.get_submodule(layer)
    except AttributeError:
        names = ", ".join(name for name, _ in model.trunk.named_children())
        raise MacError(
            f"saliency.layer: the trunk has no layer '{layer}' (its outermost layers: {names})"
        ) from None


def _combined(activations: Tensor, gradient: Tensor, method: GradientMap) -> Tensor:
    """The map of maps A and their gradient G, both (B, C, h, w): (B, h, w)."""
    maps, gradient = at_least_float32(activations), at_least_float32(gradient)
    if method == "hirescam":
        return torch.einsum("bchw,bchw->bhw", gradient, maps)
    weight = (gradient * maps).sum((2, 3)) / (maps.sum((2, 3)) + EPSILON)
    return torch.einsum("bc,bchw->bhw", weight, maps)
