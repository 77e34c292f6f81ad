"""torchvision's vision transformers (ViT, Swin, MaxViT), and ConvNeXt, which is built like them."""

from collections.abc import Callable
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.network.backbone import Backbone, MeanPooled, Network, State, at_least_float32
from pipeline.network.published import torchvision_network


class ConvNeXt(Backbone):
    """The features are the means of the last maps, after a LayerNorm."""

    def __init__(self, network: Any) -> None:
        super().__init__(network.classifier[2].in_features)
        self.features, self.norm = network.features, network.classifier[0]

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to the last maps (B, D, h, w)."""
        maps: State = self.features(x)
        return maps

    def pool(self, state: State) -> Tensor:
        """Maps (B, D, h, w) to φ (B, D)."""
        phi: Tensor = self.norm(at_least_float32(state).mean((2, 3), keepdim=True))
        return phi.flatten(1)

    def grid(self, state: State) -> Tensor:
        """The state itself."""
        return state


class Swin(MeanPooled):
    """The features are the means of the last maps, which a LayerNorm has normalised."""

    def __init__(self, network: Any) -> None:
        super().__init__(network.head.in_features)
        self.features, self.norm = network.features, network.norm

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to the last maps (B, D, h, w)."""
        maps: Tensor = self.norm(self.features(x))  # channels last
        return maps.permute(0, 3, 1, 2)


class MaxViT(Backbone):
    """The features are a hidden layer, which reads the normalised means of the last maps."""

    def __init__(self, network: Any) -> None:
        *hidden, head = network.classifier
        super().__init__(head.in_features)
        self.stem, self.blocks, self.hidden = network.stem, network.blocks, nn.Sequential(*hidden)

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to the last maps (B, C, h, w)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def pool(self, state: State) -> Tensor:
        """Maps (B, C, h, w) to φ (B, D)."""
        phi: Tensor = self.hidden(at_least_float32(state))
        return phi

    def grid(self, state: State) -> Tensor:
        """The state itself."""
        return state


class VisionTransformer(Backbone):
    """The features are the class token after the last block.

    After the last block, no patch changes the token. So the state is the input of the last block, and `pool`
    is that block and what follows.
    """

    def __init__(self, network: Any) -> None:
        super().__init__(network.hidden_dim)
        *first, self.last = network.encoder.layers
        self.norm = network.encoder.ln
        self.conv_proj, self.class_token = network.conv_proj, network.class_token
        self.position = network.encoder.pos_embedding
        self.dropout, self.blocks = network.encoder.dropout, nn.Sequential(*first)

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to the class token and the patches before the last block, (B, 1 + h·w, D)."""
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], 1)
        state: State = self.blocks(self.dropout(tokens + self.position))
        return state

    def pool(self, state: State) -> Tensor:
        """All tokens (B, T, D) to φ (B, D)."""
        phi: Tensor = self.norm(self.last(at_least_float32(state)))[:, 0]
        return phi

    def grid(self, state: State) -> Tensor:
        """The patches, (B, D, h, w)."""
        side = isqrt(state.shape[1] - 1)  # images are square
        maps: Tensor = state[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return maps

    def attention(self, x: Tensor) -> Tensor:
        """What the class token attends to in the last block, the mean over its heads."""
        tokens = self.last.ln_1(at_least_float32(self.encode(x)))
        _, weights = self.last.self_attention(tokens, tokens, tokens)  # (B, T, T)
        return self.grid(weights[:, 0, :, None])[:, 0]


def _network(
    trunk: Callable[[Any], Backbone],
    head: str,
    sides: Callable[[int], dict[str, Any]],
    architecture: str,
    weights: str,
    input_size: int,
) -> Network:
    """A network of torchvision; `sides` gives the options that make it for an input size."""
    return Network(torchvision_network(architecture, weights, **sides(input_size)), head, trunk)


def _any_side(input_size: int) -> dict[str, Any]:
    return {}


# How the names of the architectures begin, and what makes these networks.
FAMILIES: dict[str, Callable[[str, str, int], Network]] = {
    "convnext": partial(_network, ConvNeXt, "classifier.2", _any_side),
    "swin": partial(_network, Swin, "head", _any_side),
    "maxvit": partial(_network, MaxViT, "classifier.5", lambda side: {"input_size": (side, side)}),
    "vit_": partial(_network, VisionTransformer, "heads.head", lambda side: {"image_size": side}),
}
