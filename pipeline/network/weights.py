"""Weights from a file."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import MacError, first_line
from pipeline.store import regular

State = Mapping[str, object]

# The keys under which programs keep a state dict in a checkpoint.
DEEPEST = 4  # checkpoints within one another
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
_TORCH = (b"PK", b"\x80")  # how files of torch.save begin: a zip archive, or a pickle
# How files begin that are often saved in place of weights, and what they are.
_NO_WEIGHTS = {
    b"<!doctype": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
    b"<?xml": "a web page; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS, not the file; run 'git lfs pull'",
    b"{": "JSON text; download the file itself",
}


def weights_file(weights: str) -> Path | None:
    """The file that `model.weights` names: it has a suffix or a folder. None: the weights have a name."""
    path = Path(weights)
    return path if path.suffix or len(path.parts) > 1 else None


def fill(network: nn.Module, path: Path, head: str) -> None:
    """Fill a network, except its head, from a file with the names of its library.

    The tensors may be in a checkpoint's `state_dict` or `model`, and their names may begin alike, as with
    `module.`.

    Args:
        path: a .safetensors or .pth file.
        head: the module that is not used. Its tensors in the file are ignored, and may be missing.

    Raises:
        MacError: the file does not fit, or has values that are not finite.
    """
    of_head = f"{head}."
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(of_head)}
    state = _without_prefix(_unwrapped(_read(path), path), list(wanted), path)
    for name, tensor in wanted.items():
        found = state.get(name)
        if found is None and name.endswith("num_batches_tracked"):
            continue
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            what = tuple(found.shape) if isinstance(found, Tensor) else "nothing"
            raise MacError(
                f"model.weights: {path}: '{name}' should be {tuple(tensor.shape)}, found {what}; "
                "the file is of another architecture"
            )
        if found.is_floating_point() < tensor.is_floating_point() or found.layout != tensor.layout:
            kind = f"{found.dtype} ({found.layout})"
            raise MacError(f"model.weights: {path}: '{name}' should be {tensor.dtype}, found {kind}")
        if not found.to(tensor.dtype).isfinite().all():
            raise MacError(f"model.weights: {path}: '{name}' has values that are NaN or infinite; use others")
        tensor.copy_(found)


def _read(path: Path) -> object:
    """What is in a file of safetensors or of `torch.save`."""
    try:
        with regular(path) as file:
            start = file.read(64)
    except OSError as error:
        raise MacError(f"model.weights: {path}: {first_line(error).lower()}") from None
    if not start:
        raise MacError(f"model.weights: {path}: is empty; copy or download it again")
    is_safetensors = start[8:9] == b"{"
    for beginning, what in _NO_WEIGHTS.items():
        if start.lstrip().lower().startswith(beginning) and not is_safetensors:
            raise MacError(f"model.weights: {path}: is {what}")
    if not is_safetensors and not start.startswith(_TORCH):
        raise MacError(f"model.weights: {path}: is neither a safetensors file nor one of torch.save")
    try:
        if is_safetensors:
            return load_file(path)
        _require_no_torchscript(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except MacError:
        raise
    except Exception as error:
        reason = f"({first_line(error)})"
        if type(error).__name__ == "UnpicklingError":
            reason = (
                "as it has Python objects, such as a whole model, which may run any code; save a state_dict()"
            )
        raise MacError(f"model.weights: {path}: cannot be read {reason}") from None


def _require_no_torchscript(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise MacError(
                    f"model.weights: {path}: is TorchScript; save the model's state_dict() instead"
                )


def _unwrapped(found: object, path: Path) -> State:
    """The state dict in what was read: it itself, or what a checkpoint has under a known key."""
    for _ in range(DEEPEST):  # a file can hold a dictionary that holds itself
        if isinstance(found, Mapping):
            inner = [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)]
            found = inner[0] if inner else found
    if isinstance(found, Mapping) and any(isinstance(value, Tensor) for value in found.values()):
        return {str(name): value for name, value in found.items()}
    what = f"but a value of the type {type(found).__name__}"
    if isinstance(found, Tensor):
        what = f"but one tensor {tuple(found.shape)}"
    elif isinstance(found, Mapping):
        keys = ", ".join(f"'{key}'" for key in list(found)[:5])
        what = f"but {keys or 'nothing'}"
    raise MacError(f"model.weights: {path}: has no tensors by name, {what}; save a state_dict()")


def _without_prefix(state: State, wanted: Sequence[str], path: Path) -> State:
    """The state dict with what all names of the network begin with cut off, such as `module.`."""
    prefixes = list(_prefixes(state, wanted))
    if len(prefixes) > 1 and "" not in prefixes:
        found = ", ".join(f"'{prefix}…'" for prefix in prefixes)
        raise MacError(f"model.weights: {path}: has several networks ({found}); save one of them alone")
    if not prefixes or "" in prefixes:
        return state
    return {name.removeprefix(prefixes[0]): value for name, value in state.items()}


def _prefixes(state: State, wanted: Sequence[str]) -> Iterator[str]:
    """What the names of a network begin with, for each network in a state dict that has all its names."""
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    for name in map(str, state):
        prefix = name.removesuffix(needed[0])
        if prefix != name and all(f"{prefix}{each}" in state for each in needed):
            yield prefix
