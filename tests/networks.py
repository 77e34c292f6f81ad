"""Networks with random weights, for tests: torchvision's, and backbones that pipeline/ does not have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.network import classifier
from pipeline.network.backbone import Backbone, Network, State
from pipeline.network.classifier import Classifier
from pipeline.network.published import torchvision_network
from pipeline.spec import IMAGENET


def settled(architecture: str, classes: int = 3) -> Classifier:
    """A network with running statistics, so that its maps are neither zero nor huge."""
    model = classifier.build(architecture, classes, seed=1).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


class ConvNeXt(Backbone):
    """torchvision's ConvNeXt. Its features are the mean of the last maps after a LayerNorm."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.classifier[2].in_features)
        self.features = network.features
        self.norm = network.classifier[0]

    def encode(self, x: Tensor) -> State:
        return self.features(x)

    def pool(self, state: State) -> Tensor:
        mean = state.to(self.norm.weight.dtype).mean((2, 3), keepdim=True)
        return self.norm(mean).flatten(1)

    def grid(self, state: State) -> Tensor:
        return state

    def for_inference(self, dtype: torch.dtype) -> Backbone:
        self.features.to(dtype)
        return self


def convnext(architecture: str, weights: str, input_size: int) -> Network:
    """The builder of a network, as in `pipeline.network.classifier.BUILDERS`."""
    return Network(torchvision_network(architecture, weights), "classifier.2", ConvNeXt)


class Tokens(Backbone):
    """A small transformer: patches, a class token, and a block that reads them all, which is in `pool`."""

    side = 4

    def __init__(self, width: int = 12) -> None:
        super().__init__(width, IMAGENET)
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.key = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def encode(self, x: Tensor) -> State:
        patches = F.gelu(self.patches(x)).flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(x), -1, -1), patches], 1)

    def pool(self, state: State) -> Tensor:
        weight = (self.key(state) @ state[:, 0, :, None]).softmax(1)
        return self.norm((weight * state).sum(1))

    def grid(self, state: State) -> Tensor:
        return state[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
