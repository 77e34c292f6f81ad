"""The classifier: a trunk and a linear head (paper section 3.2, M = f ∘ g).

logits = W φ(x) + b, with φ(x) = pool(encode(x)). MaC retrains only the head, W and b.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import MacError, first_line
from pipeline.network import convnet, published, timm_networks, transformers
from pipeline.network.backbone import Backbone, Network, State
from pipeline.network.inputs import normalize
from pipeline.network.own_head import own_head
from pipeline.network.weights import fill, weights_file
from pipeline.spec import DataConfig, ModelSpec, Normalization

# From the architecture, its published weights or `none`, and the side of the input grid, to the network.
Builder = Callable[[str, str, int], Network]

# How the names of architectures begin, and what makes these networks.
BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(convnet.FAMILIES, convnet.network),
    **transformers.FAMILIES,
    timm_networks.PREFIX: timm_networks.network,
}


class Classifier(nn.Module):
    """Trunk and linear head.

    `state_dict()` has the trunk's tensors under `trunk.`, then `head.weight` (classes, D) and `head.bias`.
    """

    def __init__(self, trunk: Backbone, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.width, classes)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the trunk's input."""
        return self.trunk.dtype

    def input(self, grid: Tensor) -> Tensor:
        """Pixels on the input grid, (B, 3, S, S) uint8 or float32 in [0, 1], to the trunk's input."""
        return normalize(grid, self.trunk.normalization, self.dtype)

    def encode(self, x: Tensor) -> State:
        """(B, 3, S, S) of `dtype`, from `input`, to the trunk's state."""
        state: State = self.trunk(x)  # not torch.as_tensor: tracing warns about it
        return state

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) of `dtype` to φ(x) (B, D) float32."""
        return self.trunk.pool(self.encode(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) of `dtype` to logits (B, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def build(
    architecture: str,
    classes: int,
    weights: str = "none",
    seed: int = 0,
    normalization: Normalization | None = None,
    input_size: int = 224,
) -> Classifier:
    """A classifier with a freshly initialised head.

    Args:
        architecture: its name, such as `resnet50`; BUILDERS lists how it may begin.
        classes: number of classes.
        weights: the weights of the trunk: `none`; the name of published ones; or a file of weights.
        seed: seed of the initialisation.
        normalization: from pixels in [0, 1] to the trunk's input; None leaves the trunk its own.
        input_size: side of the input grid, pixels.

    Raises:
        MacError: unknown architecture or weights, or a file that does not fit.
    """
    torch.manual_seed(seed)
    file = weights_file(weights)
    network = builder(architecture)(architecture, "none" if file else weights, input_size)
    if file:
        fill(network.module, file, network.head).log()
    return _assembled(network, classes, normalization)


def from_file(
    architecture: str,
    file: Path,
    classes: Sequence[str],
    order: Sequence[str] | None = None,
    normalization: Normalization | None = None,
    input_size: int = 224,
) -> Classifier:
    """A trained classifier with its own head.

    Args:
        file: a .safetensors or .pth file with the names of the architecture's library.
        classes: the dataset's classes.
        order: the classes of the file's outputs; None if they are `classes`.
        architecture, normalization, input_size: as for `build`.

    Raises:
        MacError: unknown architecture, or a file that does not fit the architecture or the classes.
    """
    network = builder(architecture)(architecture, "none", input_size)
    found = fill(network.module, file, network.head, "model.classifier")
    model = _assembled(network, len(classes), normalization)
    head = own_head(found, network.head, model.trunk.width, classes, order)
    model.head.load_state_dict({"weight": head.weight, "bias": head.bias})
    found.log(f"the head '{head.name}'{head.note and f' ({head.note})'}")
    return model


def _assembled(network: Network, classes: int, normalization: Normalization | None) -> Classifier:
    trunk = network.trunk(network.module)
    if normalization is not None:
        trunk.normalization = normalization
    model = Classifier(trunk, classes)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def check_published(architecture: str, weights: str) -> None:
    """Check that an architecture has published weights of this name. Nothing is downloaded.

    Raises:
        MacError: it has not, or its library has no such architecture, or is not installed.
    """
    if architecture.startswith(timm_networks.PREFIX):
        timm_networks.check(architecture, weights)
    else:
        published.named_weights(architecture, weights)


def data_config(architecture: str) -> DataConfig | None:
    """What the published weights of a network were made for; None if its library does not say.

    Raises:
        MacError: its library has no such network, or is not installed.
    """
    is_timm = architecture.startswith(timm_networks.PREFIX)
    return timm_networks.data_config(architecture) if is_timm else None


def builder(architecture: str) -> Builder:
    """What makes the networks of this architecture.

    Raises:
        MacError: no family has this name.
    """
    families = [name for name in BUILDERS if architecture.startswith(name)]
    family = max(families, key=len, default=None)
    if family is None:
        known = ", ".join(BUILDERS)
        raise MacError(f"model.architecture: '{architecture}' is of none of the families {known}")
    return BUILDERS[family]


def load(spec: ModelSpec, tensors: Mapping[str, NDArray[Any]], on: torch.device) -> Classifier:
    """The classifier of a model folder, in eval mode, with frozen parameters.

    Args:
        spec: how it is built, from model.json.
        tensors: its state dict.

    Raises:
        MacError: the tensors are of another architecture.
    """
    model = build(
        spec.architecture,
        len(spec.classes),
        normalization=spec.normalization,
        input_size=spec.input_size,
    )
    try:
        model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    except RuntimeError as error:
        reason = f"its architecture '{spec.architecture}' does not fit the tensors ({first_line(error)})"
        raise MacError(f"model.json: {reason}; run 'mac train' again") from None
    return model.eval().requires_grad_(False).to(on)


def for_inference(model: Classifier, dtype: torch.dtype) -> Classifier:
    """The same classifier, made faster. Its output is the same up to rounding.

    Args:
        model: in eval mode, with frozen parameters. Its trunk is replaced; the new one may lack inner layers.
        dtype: float32 or bfloat16, of the trunk and its input. Features, head and logits stay float32.
    """
    model.trunk = model.trunk.for_inference(dtype)
    return model.requires_grad_(False)
