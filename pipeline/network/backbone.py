"""The classifier: a torchvision trunk, global average pooling, a linear head (paper section 3.2, M = f ∘ g).

trunk(x) -> A (B, C, h, w)     the last activation maps
φ(x) = mean of A over h, w     the features
logits = W φ(x) + b            the head, the only thing that MaC retrains
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import MacError, first_line
from pipeline.store import ModelFolder

FAMILIES = ("resnet", "resnext", "wide_resnet", "regnet", "densenet", "shufflenet", "mobilenet", "efficientnet", "mnasnet", "squeezenet")
_NOT_TRUNK = ("avgpool", "fc", "classifier")


class Classifier(nn.Module):
    """Trunk, global average pooling and linear head.

    `state_dict()` keeps torchvision's names under `trunk.`, and has `head.weight` (classes, C) and `head.bias`.
    """

    def __init__(self, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, classes)

    @property
    def dtype(self) -> torch.dtype:
        """What the trunk takes and puts out (but for autocast)."""
        return next(self.trunk.parameters()).dtype

    def activations(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) of `dtype` to the last activation maps A (B, C, h, w)."""
        return torch.as_tensor(self.trunk(x))

    @staticmethod
    def pool(activations: Tensor) -> Tensor:
        """A (B, C, h, w) to φ (B, C) float32; the mean is taken in float32 also under autocast."""
        return activations.float().mean((2, 3))

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float to φ(x) (B, C) float32."""
        return self.pool(self.activations(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) float to logits (B, classes)."""
        return torch.as_tensor(self.head(self.features(x)))


def build(architecture: str, classes: int, weights: str = "none", seed: int = 0) -> Classifier:
    """A classifier with a freshly initialised head.

    Args:
        architecture: a torchvision model name of one of the FAMILIES, e.g. `resnet50`.
        classes: number of classes.
        weights: `none`; a torchvision weights name (`IMAGENET1K_V2`, `DEFAULT`), downloaded by torchvision; or the
            path of a .safetensors / .pth / .pt file in torchvision's layout (its classifier, if any, is not used).
        seed: of the initialisation.

    Raises:
        MacError: unknown architecture or weights, or a file that does not fit.
    """
    if architecture not in torchvision.models.list_models(module=torchvision.models) or not architecture.startswith(FAMILIES):
        raise MacError(f"model.architecture: '{architecture}' is not a torchvision model of the families {', '.join(FAMILIES)}")
    is_file = Path(weights).suffix in (".safetensors", ".pth", ".pt")
    torch.manual_seed(seed)
    try:
        named = None if weights == "none" or is_file else torchvision.models.get_model_weights(architecture)[weights]
    except KeyError:
        known = ", ".join(w.name for w in torchvision.models.get_model_weights(architecture))
        raise MacError(
            f"model.weights: '{weights}' is neither none, nor a .safetensors/.pth file, nor torchvision weights of {architecture} ({known})"
        ) from None
    try:
        network = torchvision.models.get_model(architecture, weights=named)
    except OSError as error:  # no network: urllib's URLError is an OSError
        raise MacError(
            f"model.weights: {weights} of {architecture} could not be downloaded ({error}); give the path of a local file"
        ) from None
    children = OrderedDict((name, child) for name, child in network.named_children() if name not in _NOT_TRUNK)
    if architecture.startswith("densenet"):
        children["relu"] = nn.ReLU(inplace=True)  # torchvision applies it between `features` and the pooling
    trunk = nn.Sequential(children)
    if is_file:
        _load_trunk(trunk, Path(weights))
    with torch.no_grad():
        width = trunk.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    model = Classifier(trunk, width, classes)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load(folder: ModelFolder, device: torch.device) -> Classifier:
    """The classifier of a model folder, in eval mode, its parameters frozen, on `device`."""
    model = build(folder.spec["architecture"], len(folder.spec["classes"]))
    model.load_state_dict(load_file(folder.tensors))
    return model.eval().requires_grad_(False).to(device)


def for_inference(model: Classifier, dtype: torch.dtype) -> Classifier:
    """The same classifier made fast: batch normalisation folded into the convolutions before it, the trunk in `dtype`.

    What it puts out is the same up to rounding. Its trunk is a traced graph: inner layers are for the model as loaded.

    Args:
        model: in eval mode, its parameters frozen; its trunk is replaced.
        dtype: float32 or bfloat16. The trunk takes its input in it; features, head and logits stay float32.
    """
    trunk = fx.symbolic_trace(model.trunk)
    _fold_normalisation(trunk)
    trunk.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    on_cpu = model.head.weight.device.type == "cpu"
    if on_cpu and torch.backends.mkldnn.is_available() and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        _fuse_activations(trunk)
    trunk.delete_all_unused_submodules()
    trunk.recompile()
    model.trunk = trunk
    return model.requires_grad_(False)


def _convolutions(trunk: fx.GraphModule, *following: type[nn.Module]) -> Iterator[tuple[fx.Node, nn.Conv2d, fx.Node, nn.Module]]:
    """Each convolution that a module of the given types takes its input from, alone: node and module of both."""
    modules = dict(trunk.named_modules())
    for node in list(trunk.graph.nodes):
        convolution = modules.get(str(node.target))
        if isinstance(convolution, nn.Conv2d) and len(node.users) == 1:
            (user,) = node.users
            after = modules.get(str(user.target))
            if isinstance(after, following):
                yield node, convolution, user, after


def _fold_normalisation(trunk: fx.GraphModule) -> None:
    for node, convolution, user, norm in _convolutions(trunk, nn.BatchNorm2d):
        assert isinstance(norm, nn.BatchNorm2d)
        trunk.set_submodule(str(node.target), fuse_conv_bn_eval(convolution, norm))
        user.replace_all_uses_with(node)
        trunk.graph.erase_node(user)


def _fuse_activations(trunk: fx.GraphModule) -> None:
    """A convolution and the activation after it in one pass over memory, on a CPU; up to 1.2× in float32, 2× in bfloat16."""
    for node, convolution, user, activation in _convolutions(trunk, *_FUSED):
        trunk.set_submodule(str(node.target), _ConvolutionAndActivation(convolution, *_FUSED[type(activation)]))
        user.replace_all_uses_with(node)
        trunk.graph.erase_node(user)


# Activations that oneDNN computes with the convolution: its name for each, and the name's arguments.
_FUSED: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}


class _ConvolutionAndActivation(nn.Module):
    def __init__(self, convolution: nn.Conv2d, activation: str, arguments: list[float]) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        c = convolution
        self._arguments = (c.padding, c.stride, c.dilation, c.groups, activation, arguments, None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self._arguments))


def _load_trunk(trunk: nn.Module, path: Path) -> None:
    """Fill `trunk` from a weights file in torchvision's layout."""
    if not path.is_file():
        raise MacError(f"model.weights: {path}: no such file")
    try:
        state: Mapping[str, Tensor] = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        raise MacError(f"model.weights: {path}: cannot be read as {path.suffix} ({first_line(error)})") from None
    wanted = trunk.state_dict()
    for name, tensor in wanted.items():
        if name not in state and name.endswith("num_batches_tracked"):
            continue
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise MacError(
                f"model.weights: {path}: '{name}' should be {tuple(tensor.shape)}, found {found}; the file is of another architecture"
            )
    trunk.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
