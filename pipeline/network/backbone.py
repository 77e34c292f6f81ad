"""What every network must offer, whatever its architecture (paper section 3.2, M = f ∘ g).

encode(x)     the state: what the trunk puts out, its last activation maps, or tokens
pool(state)   the features φ(x), the head's input
grid(state)   the state as maps, to look at

Only `encode` is expensive. All that MaC retrains and all that it maps is a function of the state.
"""

from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from pipeline.spec import IMAGENET, Normalization

State: TypeAlias = Tensor


class Backbone(nn.Module):
    """The trunk of a classifier: all but the head.

    A new architecture is a subclass with `encode`, `pool` and `grid`, a function that builds it, and one
    entry in `pipeline.network.classifier.BUILDERS`.

    Attributes:
        width: D, the number of features.
        normalization: what pixels in [0, 1] go through before `encode` (`pipeline.network.inputs.normalize`).
        mean_pooled: whether `grid(state)` is the state, and `pool(state)` its mean over the grid. Then
            xGradCAM has a closed form.
    """

    mean_pooled: ClassVar[bool] = False

    def __init__(self, width: int, normalization: Normalization = IMAGENET) -> None:
        super().__init__()
        self.width = width
        self.normalization = normalization

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) of `dtype` to the state of each image; its first axis is B."""
        raise NotImplementedError

    def pool(self, state: State) -> Tensor:
        """The state to φ (B, D). It is float32, or float64 of a float64 state, whatever `dtype` is."""
        raise NotImplementedError

    def grid(self, state: State) -> Tensor:
        """The state as maps (B, C, h, w).

        It only reorders values, or leaves some out. So it takes the gradient of a state as well.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> State:
        """`encode`, so that a hook on the trunk sees the state."""
        return self.encode(x)

    @property
    def dtype(self) -> torch.dtype:
        """What `encode` takes and, without autocast, puts out."""
        return next(self.parameters()).dtype

    def for_inference(self, dtype: torch.dtype) -> "Backbone":
        """A trunk that computes the same up to rounding, in `dtype`, as fast as it can.

        It may be this one, changed, and may have other modules inside. A trunk whose `pool` has parameters
        overrides this method, to leave those in float32.
        """
        return self.to(dtype)


class MeanPooled(Backbone):
    """A trunk whose state is maps (B, D, h, w), and whose features are their means."""

    mean_pooled: ClassVar[bool] = True

    def pool(self, state: State) -> Tensor:
        """Maps A (B, D, h, w) to φ (B, D); the mean is taken in float32 under autocast too."""
        return at_least_float32(state).mean((2, 3))

    def grid(self, state: State) -> Tensor:
        """The state itself."""
        return state


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
