"""Networks with random weights, for tests: torchvision's, and a backbone that pipeline/ does not have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.network import classifier
from pipeline.network.backbone import Backbone, State
from pipeline.network.classifier import Classifier
from pipeline.spec import IMAGENET


def settled(architecture: str, classes: int = 3) -> Classifier:
    """A network with running statistics, so that its maps are neither zero nor huge."""
    model = classifier.build(architecture, classes, seed=1).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


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
