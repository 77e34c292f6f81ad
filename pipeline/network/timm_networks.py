"""timm's networks, `timm/<name>`: any of its image classifiers.

timm's `forward_features` is `encode`, and its `forward_head` without the classifier is `pool`. Normalisation
comes from timm too (`timm.data.resolve_model_data_config`).
"""

from difflib import get_close_matches
from importlib import import_module
from math import isqrt
from typing import Any, get_args

from torch import Tensor, nn

from pipeline.errors import MacError, first_line
from pipeline.network.backbone import Backbone, Network, State, at_least_float32
from pipeline.setting import Interpolation
from pipeline.spec import DataConfig, Normalization

PREFIX = "timm/"
PRETRAINED = "pretrained"  # the name of the weights that timm publishes


def network(architecture: str, weights: str, input_size: int) -> Network:
    """A network of timm.

    Args:
        architecture: such as `timm/convnext_atto`. With a tag, such as `timm/convnext_atto.d2_in1k`, it says
            which of timm's weights are meant.
        weights: `none`, for a random initialisation; or `pretrained`, downloaded by timm.
        input_size: side of the input grid, pixels. A network of a fixed size is made for it.

    Raises:
        MacError: timm is not installed, it has no such network or weights, they cannot be downloaded, or the
            network cannot be used: it does not take this size, has no maps, or two heads.
    """
    check(architecture, weights)
    timm, name = _timm(architecture), architecture.removeprefix(PREFIX)
    known = timm.get_pretrained_cfg(name)
    is_made_for_it = not known or not known.fixed_input_size or known.input_size[-1] == input_size
    side = {} if is_made_for_it else {"img_size": input_size}
    try:
        module: nn.Module = timm.create_model(name, pretrained=weights == PRETRAINED, **side)
    except Exception as error:  # of timm, of the hub, or of the program that fetches
        reason = f"({first_line(error)})"
        if weights != PRETRAINED:
            what = f"{architecture} does not take {input_size} pixels"
            raise MacError(f"model.architecture: {what} {reason}") from None
        what = f"{weights} of {architecture} could not be fetched"
        raise MacError(f"model.weights: {what} {reason}; give the path of a local file") from None
    head = _stated(module)["classifier"]
    if not isinstance(head, str):
        heads = " and ".join(head)
        raise MacError(f"model.architecture: {architecture} has several heads, {heads}; MaC retrains one")
    return Network(module, head, lambda made: _trunk(architecture, made, head))


def check(architecture: str, weights: str) -> None:
    """Check that timm has such a network and such weights. Nothing is made or downloaded.

    Raises:
        MacError: it has not, or timm is not installed.
    """
    timm, name = _timm(architecture), architecture.removeprefix(PREFIX)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        alike = ", ".join(get_close_matches(base, timm.list_models()))
        has = f"; it has {alike}" if alike else ""
        raise MacError(f"model.architecture: timm has no '{base}'{has}")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none at all"
        raise MacError(f"model.architecture: timm has no weights '{tag}' of {base}; it has {known}")
    if weights not in ("none", PRETRAINED):
        raise MacError(f"model.weights: '{weights}' is neither none, nor {PRETRAINED}, nor a file")
    if weights == PRETRAINED and not tags:
        raise MacError(f"model.weights: timm has no weights of {base}; give the path of a local file")


def data_config(architecture: str) -> DataConfig:
    """What timm's weights of a network were made for.

    Raises:
        MacError: timm is not installed, or has no such network.
    """
    check(architecture, "none")
    timm, name = _timm(architecture), architecture.removeprefix(PREFIX)
    known = timm.get_pretrained_cfg(name).to_dict()
    return _data_config(import_module("timm.data").resolve_data_config(pretrained_cfg=known))


def _data_config(config: dict[str, Any]) -> DataConfig:
    side = config["input_size"][-1]
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    found = [each for each in known if each == config["interpolation"]]
    return DataConfig(
        input_size=side,
        stored_size=round(side / config["crop_pct"]),
        interpolation=found[0] if found else "bilinear",
        normalization=Normalization(tuple(config["mean"]), tuple(config["std"])),
    )


def _timm(architecture: str) -> Any:
    try:
        return import_module("timm")
    except ImportError:
        raise MacError(
            f"model.architecture: {architecture} needs timm: pip install 'mac-robust[networks]'"
        ) from None


def _trunk(architecture: str, module: Any, head: str) -> Backbone:
    """The trunk of timm's network."""
    module.set_submodule(head, nn.Identity())
    config = import_module("timm.data").resolve_model_data_config(module)
    normalization = _data_config(config).normalization
    if not _reads_token(module):
        return TimmTrunk(module, normalization)
    if type(module).forward_features is not _vision_transformer().forward_features:
        raise MacError(
            f"model.architecture: {architecture} reads its class token alone, so its patches have no map, "
            "and MaC does not know its last block; choose a VisionTransformer of timm"
        )
    return TokenTrunk(module, normalization)


def _stated(module: Any) -> dict[str, Any]:
    """What timm states about a network that it made."""
    stated: dict[str, Any] = module.default_cfg
    return stated


def _vision_transformer() -> Any:
    return import_module("timm.models.vision_transformer").VisionTransformer


def _reads_token(module: Any) -> bool:
    return getattr(module, "global_pool", None) == "token"


class TimmTrunk(Backbone):
    """timm's network without its classifier."""

    def __init__(self, network: Any, normalization: Normalization) -> None:
        super().__init__(network.head_hidden_size, normalization)
        self.network = network

    def encode(self, x: Tensor) -> State:
        """(B, 3, H, W) to timm's features: maps, channels first or last; or tokens, a class token first."""
        state: State = self.network.forward_features(x)
        return state

    def pool(self, state: State) -> Tensor:
        """The features to φ (B, D), timm's `pre_logits`."""
        phi: Tensor = self.network.forward_head(at_least_float32(state), pre_logits=True)
        return phi

    def grid(self, state: State) -> Tensor:
        """The features as maps (B, C, h, w), without class and register tokens.

        Raises:
            MacError: they are no maps, and no square of tokens.
        """
        channels = self.network.num_features
        if state.ndim == 4 and state.shape[1] == channels:
            return state
        if state.ndim == 4 and state.shape[3] == channels:
            return state.permute(0, 3, 1, 2)
        if state.ndim == 3:
            return _square(state[:, getattr(self.network, "num_prefix_tokens", 0) :].transpose(1, 2))
        name = type(self.network).__name__
        raise MacError(f"model.architecture: the features of {name}, {tuple(state.shape)}, are no maps")

    def attention(self, x: Tensor) -> Tensor | None:
        """The attention of the last block, the mean over its heads.

        What the class token attends to; without one, what the patches attend to on average.
        """
        attention = getattr(self._last_block(), "attn", None)
        if not isinstance(getattr(attention, "attn_drop", None), nn.Dropout):
            return None
        assert attention is not None
        seen: list[Tensor] = []
        # The input of its dropout is the softmax, unless attention is computed in one piece.
        handle = attention.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        fused, attention.fused_attn = attention.fused_attn, False
        try:
            self.pool(self.encode(x))
        finally:
            attention.fused_attn = fused
            handle.remove()
        weights = at_least_float32(seen[0])
        if weights.ndim != 4:  # (B, heads, T, T)
            return None
        prefix = getattr(self.network, "num_prefix_tokens", 0)
        asking = weights[:, :, :1] if _reads_token(self.network) else weights[:, :, prefix:]
        return _square(asking.mean((1, 2))[:, None, prefix:])[:, 0]

    def _last_block(self) -> Any:
        blocks = getattr(self.network, "blocks", None)
        return blocks[-1] if isinstance(blocks, (nn.Sequential, nn.ModuleList)) else None


class TokenTrunk(TimmTrunk):
    """A vision transformer that reads its class token.

    After the last block, no patch changes the token. So the state is the input of the last block, and `pool`
    is that block and what follows.
    """

    def __init__(self, network: Any, normalization: Normalization) -> None:
        super().__init__(network, normalization)
        *first, self.last = network.blocks
        self.norm = network.norm
        network.blocks, network.norm = nn.Sequential(*first), nn.Identity()

    def pool(self, state: State) -> Tensor:
        """All tokens before the last block, (B, T, D), to φ (B, D)."""
        return super().pool(self.norm(self.last(at_least_float32(state))))

    def _last_block(self) -> Any:
        return self.last


def _square(tokens: Tensor) -> Tensor:
    """Tokens (B, C, N) of a square image as maps (B, C, h, w)."""
    side = isqrt(tokens.shape[2])
    if side**2 != tokens.shape[2]:
        raise MacError(f"model.architecture: {tokens.shape[2]} tokens are no square of patches")
    maps: Tensor = tokens.unflatten(2, (side, side))
    return maps
