"""What every network must offer, whatever its architecture (paper section 3.2, M = f ∘ g).

encode(x)     the state: the output of the trunk, which is its last activation maps, or tokens
pool(state)   the features φ(x), the head's input
grid(state)   the state as maps, for saliency

Only `encode` is expensive. Features and maps are functions of the state.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from pipeline.spec import IMAGENET, Normalization

State: TypeAlias = Tensor


class Backbone(nn.Module):
    """The trunk of a classifier: all but the head.

    A new architecture is a subclass with `encode`, `pool` and `grid`, a function that makes its `Network`,
    and one entry in `pipeline.network.classifier.BUILDERS`.

    Attributes:
        width: D, the number of features.
        normalization: from pixels in [0, 1] to the input of `encode` (`pipeline.network.inputs.normalize`).
        mean_pooled: whether `grid(state)` is the state itself, and `pool(state)` its mean over the grid. Then
            maps have a closed form.
        rectified: whether the values of the state are known not to be negative.
    """

    mean_pooled: ClassVar[bool] = False
    rectified: bool = False

    def __init__(self, width: int, normalization: Normalization = IMAGENET) -> None:
        super().__init__()
        self.width = width
        self.normalization = normalization

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) of `dtype` to the state of each image; its first axis is B."""
        raise NotImplementedError

    def pool(self, state: State) -> Tensor:
        """The state to φ (B, D), in float32 whatever `dtype` is; in float64 if the state is float64."""
        raise NotImplementedError

    def grid(self, state: State) -> Tensor:
        """The state as maps (B, C, h, w).

        It only reorders values, or leaves some out. So it also turns the gradient of a state into maps.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> State:
        """The same as `encode`, so that a forward hook on the trunk gets the state."""
        return self.encode(x)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the input of `encode` and, without autocast, of its output."""
        return next(self.parameters()).dtype

    def attention(self, x: Tensor) -> Tensor | None:
        """(B, 3, H, W) of `dtype` to what the last block attends to, (B, h, w) float32.

        None for a network without attention.
        """
        return None

    def for_inference(self, dtype: torch.dtype) -> "Backbone":
        """A faster trunk, with `encode` in `dtype`, that computes the same up to rounding.

        It may be this trunk, changed, and may have other modules inside.
        """
        return self if dtype == self.dtype else _Mixed(self, dtype)


class MeanPooled(Backbone):
    """A trunk whose state is maps (B, D, h, w), and whose features are their means."""

    mean_pooled: ClassVar[bool] = True

    def pool(self, state: State) -> Tensor:
        """Maps A (B, D, h, w) to φ (B, D); the mean is in float32, under autocast too."""
        return at_least_float32(state).mean((2, 3))

    def grid(self, state: State) -> Tensor:
        """The state itself."""
        return state

    def for_inference(self, dtype: torch.dtype) -> Backbone:
        """The trunk itself: `pool` has no parameters."""
        return self.to(dtype)


class _Mixed(Backbone):
    """A trunk that encodes in another dtype, and does all else in its own."""

    def __init__(self, trunk: Backbone, dtype: torch.dtype) -> None:
        super().__init__(trunk.width, trunk.normalization)
        self.encoding = deepcopy(trunk).to(dtype)
        self.trunk = trunk
        self.rectified = trunk.rectified

    def encode(self, x: Tensor) -> State:
        return self.encoding.encode(x)

    def pool(self, state: State) -> Tensor:
        return self.trunk.pool(at_least_float32(state))

    def grid(self, state: State) -> Tensor:
        return self.trunk.grid(state)

    def attention(self, x: Tensor) -> Tensor | None:
        return self.trunk.attention(x.to(self.trunk.dtype))


@dataclass(frozen=True)
class Network:
    """A network as its library makes it, and how it becomes a trunk.

    Attributes:
        module: the whole network. Weights are saved with the names of its tensors.
        head: the name of its last linear layer, such as `fc` or `classifier.1`.
        trunk: from the module, which it may change, to its trunk.
    """

    module: nn.Module
    head: str
    trunk: Callable[[Any], Backbone]


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 are not changed."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
