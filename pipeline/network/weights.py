"""torchvision's networks, with weights by name or from a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import MacError, first_line

_FILES = (".safetensors", ".pth", ".pt")


def torchvision_network(architecture: str, weights: str, head: Sequence[str]) -> nn.Module:
    """A network of torchvision, freshly initialised or with weights.

    Args:
        architecture: a torchvision model name, such as `resnet50`.
        weights: `none`; a torchvision weights name (`IMAGENET1K_V2`, `DEFAULT`), downloaded by torchvision;
            or the path of a .safetensors, .pth or .pt file in torchvision's layout.
        head: modules that are not used. Their tensors in the file are ignored, and may be missing.

    Raises:
        MacError: unknown architecture or weights, or a file that does not fit.
    """
    if architecture not in torchvision.models.list_models(module=torchvision.models):
        raise MacError(f"model.architecture: '{architecture}' is not a torchvision model")
    is_file = Path(weights).suffix in _FILES
    named = None if weights == "none" or is_file else _named(architecture, weights)
    try:
        network: nn.Module = torchvision.models.get_model(architecture, weights=named)
    except OSError as error:  # no network: urllib's URLError is an OSError
        raise MacError(
            f"model.weights: {weights} of {architecture} could not be downloaded ({error}); "
            "give the path of a local file"
        ) from None
    if is_file:
        _fill(network, Path(weights), head)
    return network


def _named(architecture: str, weights: str) -> object:
    """torchvision's own weights with this name."""
    known = torchvision.models.get_model_weights(architecture)
    try:
        return known[weights]
    except KeyError:
        names = ", ".join(each.name for each in known)
        raise MacError(
            f"model.weights: '{weights}' is neither none, nor a .safetensors/.pth file, "
            f"nor torchvision weights of {architecture} ({names})"
        ) from None


def _fill(network: nn.Module, path: Path, head: Sequence[str]) -> None:
    """Fill a network, except its head, from a weights file in torchvision's layout."""
    state = _read(path)
    not_used = tuple(f"{name}." for name in head)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(not_used)}
    for name, tensor in wanted.items():
        if name not in state and name.endswith("num_batches_tracked"):
            continue
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise MacError(
                f"model.weights: {path}: '{name}' should be {tuple(tensor.shape)}, found {found}; "
                "the file is of another architecture"
            )
    for name in wanted.keys() & state.keys():
        wanted[name].copy_(state[name])


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise MacError(f"model.weights: {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:
        reason = first_line(error)
        raise MacError(f"model.weights: {path}: cannot be read as {path.suffix} ({reason})") from None
