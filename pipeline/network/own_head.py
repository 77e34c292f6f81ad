"""The head of one's own classifier: found in its file, and brought to the dataset's classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.network.weights import Filled

_MOST_NAMED = 10  # classes in a message


@dataclass(frozen=True)
class Head:
    """A linear head.

    Attributes:
        name: the name of its layer in the file.
        weight: (C, D) float32.
        bias: (C,) float32.
        note: what was made of it, for the log; often empty.
    """

    name: str
    weight: Tensor
    bias: Tensor
    note: str = ""


def own_head(
    found: Filled, name: str, width: int, classes: Sequence[str], order: Sequence[str] | None
) -> Head:
    """The head in a file, with a row for each of the dataset's classes in their order.

    Args:
        found: what the trunk was filled from.
        name: the library's name of the last linear layer.
        width: D, the number of the trunk's features.
        classes: the dataset's.
        order: the names of the file's outputs; None if they are `classes`.

    Raises:
        MacError: there is no linear layer on the features, or it has other outputs than the dataset classes.
    """
    layer = _layer(found, name, width, len(classes))
    weight = _finite(found, f"{layer}.weight")
    if f"{layer}.bias" in found.others:
        bias, note = _finite(found, f"{layer}.bias"), ""
        if bias.shape != weight.shape[:1]:
            raise found.error(f"'{layer}.bias' should be ({len(weight)},), found {tuple(bias.shape)}")
    else:
        bias, note = torch.zeros(len(weight)), "without a bias: zeros"
    if order is not None and sorted(order) != sorted(classes):
        raise found.error(
            f"model.classes should have the dataset's classes, each once: {_listed(classes)}; "
            f"it has {_listed(order)}"
        )
    if len(weight) == 1 and len(classes) == 2:
        if order is None:
            raise found.error(
                f"the head '{layer}' has one output, a sigmoid; say in model.classes which class is 0 and "
                f"which is 1: [{', '.join(classes)}], or the other way round"
            )
        # σ(z) is the softmax of −z/2 and z/2
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
        note = "; ".join([*([note] if note else []), f"a sigmoid: {order[1]} against {order[0]}"])
    if len(weight) != len(classes):
        raise found.error(
            f"the head '{layer}' has {len(weight)} outputs, and the dataset {len(classes)} classes "
            f"({_listed(classes)}); to train a head on this trunk, set model.classifier to null and "
            "model.weights to this file"
        )
    rows = [(order or classes).index(each) for each in classes]
    return Head(layer, weight[rows], bias[rows], note)


def _layer(found: Filled, name: str, width: int, classes: int) -> str:
    """The name of the one linear layer on the trunk's features.

    It has the library's name, and the file no other layer with this prefix, such as one of a changed network;
    or it is the only linear layer beside the trunk, whatever its name.
    """
    linear = {}
    for each, tensor in found.others.items():
        if each.endswith(".weight") and tensor.ndim > 1:
            linear[each.removesuffix(".weight")] = tuple(tensor.shape)
    own = f"{found.prefix}{name}"
    alone = [each for each in linear if each.startswith(found.prefix)] == [own]
    if alone and linear[own] in ((1, width), (classes, width)):
        layer = own
    elif len(linear) == 1:
        (layer,) = linear
    else:
        shown = ", ".join(f"'{each}' {shape}" for each, shape in list(linear.items())[:_MOST_NAMED])
        what = f"has several layers beside the trunk ({shown})" if linear else "has no head beside the trunk"
        raise found.error(_advice(what, width))
    if linear[layer][1:] != (width,):
        raise found.error(_advice(f"the head '{layer}' is {linear[layer]}", width))
    region = found.prefix if layer.startswith(found.prefix) else ""
    for each, tensor in found.others.items():
        if each.startswith(region) and tensor.shape == (width,):
            raise found.error(_advice(f"has '{each}' between the trunk and the head '{layer}'", width))
    return layer


def _advice(what: str, width: int) -> str:
    return (
        f"{what}; only one linear layer on the {width} features can be taken over, so set model.classifier "
        "to null and model.weights to this file: then a head is trained"
    )


def _finite(found: Filled, name: str) -> Tensor:
    """A tensor of the head, as float32."""
    tensor = found.others[name].float()
    if not tensor.isfinite().all():
        raise found.error(f"'{name}' has values that are NaN or infinite; use others")
    return tensor


def _listed(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:_MOST_NAMED]) + (f", … ({len(names)})" if len(names) > _MOST_NAMED else "")
