"""torchvision's networks, with random weights or the published ones."""

from typing import Any

import torchvision
from torch import nn

from pipeline.errors import MacError, first_line


def torchvision_network(architecture: str, weights: str, **options: Any) -> nn.Module:
    """A network of torchvision, with its classifier.

    Args:
        architecture: a torchvision model name, such as `resnet50`.
        weights: `none`, for a random initialisation; or a torchvision weights name (`IMAGENET1K_V2`,
            `DEFAULT`), downloaded by torchvision.
        options: of torchvision's own function.

    Raises:
        MacError: unknown architecture or weights, or they cannot be downloaded.
    """
    named = None if weights == "none" else named_weights(architecture, weights)
    _require_known(architecture)
    try:
        network: nn.Module = torchvision.models.get_model(architecture, weights=named, **options)
    except (ValueError, AssertionError, RuntimeError) as error:  # an input size that does not fit
        given = ", ".join(f"{name} {value}" for name, value in options.items())
        raise MacError(
            f"model.architecture: {architecture} cannot be made with {given} ({first_line(error)})"
        ) from None
    except OSError as error:  # no network: urllib's URLError is an OSError
        raise MacError(
            f"model.weights: {weights} of {architecture} could not be downloaded ({error}); "
            "give the path of a local file"
        ) from None
    return network


def _require_known(architecture: str) -> None:
    if architecture not in torchvision.models.list_models(module=torchvision.models):
        raise MacError(f"model.architecture: '{architecture}' is not a torchvision model")


def named_weights(architecture: str, weights: str) -> object:
    """torchvision's own weights with this name.

    Raises:
        MacError: the architecture has none of this name.
    """
    _require_known(architecture)
    known = torchvision.models.get_model_weights(architecture)
    try:
        return known[weights]
    except KeyError:
        names = ", ".join(each.name for each in known)
        raise MacError(
            f"model.weights: '{weights}' is neither none, nor a file, "
            f"nor torchvision weights of {architecture} ({names})"
        ) from None
