"""torchvision's convolutional networks in which the features are the means of the last maps."""

import threading
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.network.backbone import Backbone, MeanPooled, Network, State
from pipeline.network.published import torchvision_network
from pipeline.spec import Normalization

# How the names of the architectures begin.
FAMILIES = (
    *("resnet", "resnext", "wide_resnet", "regnet", "densenet", "shufflenet"),
    *("mobilenet", "efficientnet", "mnasnet", "squeezenet"),
)

_HEAD = ("fc", "classifier")  # torchvision's modules that read the pooled maps
_SIGNED = ("efficientnet", "mobilenet_v3")  # those without a ReLU before the pooling


class ConvNet(MeanPooled):
    """torchvision's network up to its pooling. Modules and tensors keep torchvision's names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(_width(network))
        for name, child in network.named_children():
            if name not in (*_HEAD, "avgpool"):
                self.add_module(name, child)

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to the last activation maps A (B, D, h, w)."""
        for layer in self.children():
            x = layer(x)
        return x

    def for_inference(self, dtype: torch.dtype) -> MeanPooled:
        """The same network with every batch normalisation folded into the convolution before it.

        On a CPU, a convolution and the activation after it are computed together. The new network has no
        inner layers that a map could use.
        """
        graph = _traced(self)
        _fold_normalisation(graph)
        graph.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        on_cpu = next(self.parameters()).device.type == "cpu"
        if on_cpu and _has_fused_convolutions(dtype):
            _fuse_activations(graph)
        graph.delete_all_unused_submodules()
        graph.recompile()
        fused = _Fused(graph, self.width, self.normalization)
        fused.rectified = self.rectified
        return fused


class WithHiddenLayer(Backbone):
    """MobileNetV3: its features are a hidden layer, which reads the means of the last maps."""

    def __init__(self, convolutions: MeanPooled, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__(linear.out_features)
        self.convolutions: Backbone = convolutions
        self.hidden = nn.Sequential(linear, activation)

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to the last activation maps (B, C, h, w)."""
        return self.convolutions.encode(x)

    def pool(self, state: State) -> Tensor:
        """Maps (B, C, h, w) to φ (B, D)."""
        phi: Tensor = self.hidden(self.convolutions.pool(state))
        return phi

    def grid(self, state: State) -> Tensor:
        """The state itself."""
        return state

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the convolutions."""
        return self.convolutions.dtype

    def for_inference(self, dtype: torch.dtype) -> Backbone:
        """The same with faster convolutions; the hidden layer stays in float32."""
        self.convolutions = self.convolutions.for_inference(dtype)
        return self


def network(architecture: str, weights: str, input_size: int) -> Network:
    """A network of one of the FAMILIES; arguments as in `published.torchvision_network`.

    Raises:
        MacError: unknown architecture or weights.
    """
    module = torchvision_network(architecture, weights)
    if architecture.startswith("densenet"):
        # torchvision applies a ReLU between `features` and the pooling.
        module.add_module("relu", nn.ReLU(inplace=True))
    signed = architecture.startswith(_SIGNED)
    return Network(module, _head(module), lambda made: _trunk(made, rectified=not signed))


def _head(module: nn.Module) -> str:
    """The name of torchvision's last linear layer. SqueezeNet has none: it classifies before it pools."""
    (outer,) = (name for name in _HEAD if hasattr(module, name))
    linear = [name for name, each in getattr(module, outer).named_modules() if isinstance(each, nn.Linear)]
    return f"{outer}.{linear[-1]}".removesuffix(".") if linear else outer


def _trunk(module: nn.Module, rectified: bool) -> Backbone:
    trunk = ConvNet(module)
    trunk.rectified = rectified
    classifier = getattr(module, "classifier", nn.Identity())
    if isinstance(classifier, nn.Sequential) and isinstance(classifier[0], nn.Linear):
        return WithHiddenLayer(trunk, classifier[0], classifier[1])
    return trunk


def _width(network: nn.Module) -> int:
    """The number of maps at the input of torchvision's own classifier."""
    for name in _HEAD:
        for module in getattr(network, name, nn.Identity()).modules():
            if isinstance(module, nn.Linear):
                return module.in_features
            if isinstance(module, nn.Conv2d):  # SqueezeNet classifies before it pools
                return module.in_channels
    raise ValueError(f"{type(network).__name__} has no classifier")


class _Fused(MeanPooled):
    """A ConvNet made for inference: a traced graph."""

    def __init__(self, graph: fx.GraphModule, width: int, normalization: Normalization) -> None:
        super().__init__(width, normalization)
        self.graph = graph

    def encode(self, x: Tensor) -> State:
        maps: State = self.graph(x)
        return maps


_tracing = threading.Lock()  # fx changes the class nn.Module while it traces, so only one thread may trace


def _traced(network: nn.Module) -> fx.GraphModule:
    with _tracing:
        return fx.symbolic_trace(network)


def _has_fused_convolutions(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes a convolution and an activation at once on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_Pair = tuple[fx.Node, nn.Conv2d, fx.Node, nn.Module]


def _convolutions(graph: fx.GraphModule, *following: type[nn.Module]) -> Iterator[_Pair]:
    """Each convolution whose output goes only to one module of the given types.

    Yields the node and the module of the convolution, then those of the module after it.
    """
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        convolution = modules.get(str(node.target))
        if isinstance(convolution, nn.Conv2d) and len(node.users) == 1:
            (user,) = node.users
            after = modules.get(str(user.target))
            if isinstance(after, following):
                yield node, convolution, user, after


def _fold_normalisation(graph: fx.GraphModule) -> None:
    for node, convolution, user, norm in _convolutions(graph, nn.BatchNorm2d):
        assert isinstance(norm, nn.BatchNorm2d)
        graph.set_submodule(str(node.target), fuse_conv_bn_eval(convolution, norm))
        user.replace_all_uses_with(node)
        graph.graph.erase_node(user)


def _fuse_activations(graph: fx.GraphModule) -> None:
    """Compute a convolution and the activation after it in one pass over memory.

    On a CPU, this is up to 1.2 times as fast in float32, and up to twice as fast in bfloat16.
    """
    for node, convolution, user, activation in _convolutions(graph, *_FUSED):
        fused = _ConvolutionAndActivation(convolution, *_FUSED[type(activation)])
        graph.set_submodule(str(node.target), fused)
        user.replace_all_uses_with(node)
        graph.graph.erase_node(user)


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
        c = convolution
        self.weight, self.bias = c.weight, c.bias
        self._arguments = (c.padding, c.stride, c.dilation, c.groups, activation, arguments, None)

    def forward(self, x: Tensor) -> Tensor:
        convolve = torch.ops.mkldnn._convolution_pointwise
        out: Tensor = convolve(x, self.weight, self.bias, *self._arguments)
        return out
